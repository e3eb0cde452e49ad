"""What the tests share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bilevel.tasks import data, images, runs, sweep
from photos import write_photos

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


# ----------------------------------------------------------------------- for the command line


@pytest.fixture
def short_slider(monkeypatch):
    """Three pictures in the reports of tests that are about something else."""
    for name in ("FACTORS", "FEW"):
        monkeypatch.setattr(sweep, name, (0.5, 1.0, 2.0))


@pytest.fixture(scope="session")
def learned(tmp_path_factory):
    """A folder with photos and a run for every noise level, made by the command."""
    folder = tmp_path_factory.mktemp("learned")
    write_photos(folder / "photos")
    job = runs.Job(str(folder / "photos"), noise="5:50", crop=16, crops=3)
    runs.learn(job, folder / "run", steps=2, progress=False)
    return folder


@pytest.fixture
def here(learned, tmp_path, monkeypatch):
    """A working folder with photos/, run/ and a noisy.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(learned / "photos")
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "model.safetensors", "metrics.csv"):
        (tmp_path / "run" / name).write_bytes((learned / "run" / name).read_bytes())
    clean = images.read(learned / "photos" / "a1.png")
    seen = data.noisy(clean.channels, 25, np.random.default_rng(0))
    images.write(tmp_path / "noisy.png", clean.with_channels(seen))
    return tmp_path
