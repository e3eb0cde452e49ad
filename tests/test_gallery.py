"""The short pages of the gallery run as scripts; all of them run when the docs are built."""

import os
import runpy
from pathlib import Path

import pytest
import torch

import bilevel as bl
from learning_problem import fork_server

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_page(page, folder):
    os.chdir(folder)
    os.environ["MPLBACKEND"] = "Agg"
    with open("stderr.txt", "w") as told:
        os.dup2(told.fileno(), 2)
    runpy.run_path(page, run_name="__main__")


@pytest.mark.parametrize("page", ["02_total_variation_derivative.py", "03_biased_strategies.py"])
def test_a_page_runs(page, tmp_path):
    pytest.importorskip("matplotlib")
    x = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    bl.TotalVariation(dims=1).prox(x, 1.0).sum().backward()  # what compiles says so, but once
    process = fork_server.Process(target=run_page, args=(str(EXAMPLES / page), tmp_path))
    process.start()
    process.join(400)
    told = (tmp_path / "stderr.txt").read_text()
    assert process.exitcode == 0 and not told, told  # no warning, either
