"""The short pages of the gallery run as scripts; all of them run when the docs are built."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import bilevel as bl

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("page", ["02_total_variation_derivative.py", "03_biased_strategies.py"])
def test_a_page_runs(page, tmp_path):
    pytest.importorskip("matplotlib")
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    bl.TotalVariation(dims=1).prox(x, 1.0).sum().backward()  # what compiles says so, but once
    told = subprocess.run(
        [sys.executable, str(EXAMPLES / page)],
        cwd=tmp_path,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert told.returncode == 0 and not told.stderr, told.stderr  # no warning, either
