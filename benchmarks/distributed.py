"""What a second process brings: seconds a step of the same learning run, one thread a process.

python benchmarks/distributed.py        results in benchmarks/results/distributed.md
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import store
from torch import Tensor, nn

import bilevel as bl

SAMPLES, SIDE, STEPS, PAIRS = 16, 64, 6, 15


class Denoiser(nn.Module):
    """Isotropic TV with one learned weight; the solves are loose, as in the command."""

    def __init__(self) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def forward(self, noisy: Tensor) -> Tensor:
        energy = bl.LeastSquares(noisy) + self.log_weight.exp() * bl.TotalVariation()
        return bl.argmin(energy, tol=1e-5, diff=bl.FixedPoint(bl.BiCGStab(tol=1e-4), order=1))


def photographs() -> list[dict[str, Tensor]]:
    """Piecewise constant, with noise of 0.1."""
    draw = torch.Generator().manual_seed(0)
    options = {"generator": draw, "dtype": torch.float64}
    data = []
    for _ in range(SAMPLES):
        blocks = torch.rand(1, SIDE // 8, SIDE // 8, **options)
        clean = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
        data.append({"clean": clean, "noisy": clean + 0.1 * torch.randn(clean.shape, **options)})
    return data


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["noisy"]) - batch["clean"]).square().mean()


def learn(report: str) -> None:
    """One run, by as many processes as torchrun started; the first reports."""
    torch.set_num_threads(1)
    result = bl.learn(
        Denoiser(),
        photographs(),
        loss,
        optimizer=lambda p: torch.optim.Adam(p, lr=0.2),
        steps=STEPS,
        progress=False,
    )
    if os.environ.get("RANK", "0") == "0":
        Path(report).write_text(json.dumps(result.history))


def run(processes: int) -> list[dict]:
    """The history of a run."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    start = torchrun if processes > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with tempfile.NamedTemporaryFile() as report:
        command = [sys.executable, *start, __file__, "--learn", report.name]
        subprocess.run(command, check=True, env=environment)
        return json.loads(Path(report.name).read_text())


def seconds_a_step(history: list[dict]) -> float:
    """Without the first step, which starts cold."""
    return (history[-1]["seconds"] - history[0]["seconds"]) / (len(history) - 1)


def main() -> None:
    pairs, apart = [], 0.0
    for k in range(PAIRS):
        order = (1, 2) if k % 2 == 0 else (2, 1)
        histories = {processes: run(processes) for processes in order}
        pairs.append([seconds_a_step(histories[processes]) for processes in (1, 2)])
        losses = [[row["loss"] for row in histories[processes]] for processes in (1, 2)]
        apart = max(apart, *(abs(a / b - 1) for a, b in zip(*losses, strict=True)))
    assert apart < 1e-6, apart  # faster, not another run
    ratios = np.array([one / two for one, two in pairs])
    draws = np.random.default_rng(0).choice(ratios, (2000, PAIRS))
    low, high = np.quantile(np.median(draws, axis=1), [0.05, 0.95])
    row = {
        "what": f"TV denoising, {SAMPLES} x {SIDE} x {SIDE}",
        "goal": 1.6,
        "one_process_s": statistics.median(one for one, _ in pairs),
        "two_processes_s": statistics.median(two for _, two in pairs),
        "throughput": float(np.median(ratios)),
        "interval_90": [float(low), float(high)],
        "loss_apart": apart,
    }
    notes = (
        f"Seconds a step of the same run ({STEPS} steps of Adam on all samples, the first left "
        f"out), one thread a process, {PAIRS} alternated pairs; loss_apart: the largest relative "
        "difference between both loss curves."
    )
    store("distributed", "Many processes", [row], list(row), notes)


if __name__ == "__main__":
    learn(sys.argv[2]) if "--learn" in sys.argv else main()
