"""What the tests share."""

from pathlib import Path

import pytest
import torch

SHARED_DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def seeded():
    """Every test sees the same random numbers, alone or in company."""
    torch.manual_seed(0)


@pytest.fixture
def float64():
    """Laws are about formulas: float64 is the default dtype while they are tested."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def shared_data():
    """shared_data("bsd68"): the folder of a data set; the test skips, by name, where it is not."""

    def folder(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.is_dir():
            pytest.skip(f"needs the data set {name} in ../shared/data")
        return path

    return folder


def pytest_make_parametrize_id(config, val, argname):
    """Functions go by their names: an address would differ between parallel workers."""
    return getattr(val, "__name__", None) if callable(val) else None
