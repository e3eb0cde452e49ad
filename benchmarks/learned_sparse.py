"""Sparse codes by a fixed number of learned steps: the family of LISTA, against ISTA and FISTA.

python benchmarks/learned_sparse.py [overhead]    results in benchmarks/results/learned_sparse.md;
                                                  with `overhead` the training is that of before

The setting of LISTA-CPSS: y = A x without noise, A 250 x 500 Gaussian with unit columns, each entry
of x nonzero with probability 0.1, then normal; 16 steps. NMSE = E|x_k - x|^2 / E|x|^2 on 1000
samples that no training saw. Every net is trained at once, for the mean of log NMSE over its
steps, by Adam on fresh samples, with a cosine schedule. One thread, seconds of the processor.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from measure import former, processor_seconds, store
from torch import Tensor, nn

import bilevel as bl
from bilevel.layers import ALISTA, LISTA, CoupledLISTA, HyperLISTA

M, N, STEPS, BATCH = 250, 500, 16, 128
MATRIX = torch.randn(M, N, generator=torch.Generator().manual_seed(0))
MATRIX /= MATRIX.norm(dim=0)


def draw(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(y, x)"""
    support = torch.rand(count, N, generator=generator) < 0.1
    x = torch.randn(count, N, generator=generator) * support
    return x @ MATRIX.T, x


def decibels(found: Tensor, x: Tensor) -> Tensor:
    return 10 * torch.log10((found - x).square().sum() / x.square().sum())


class Lasso(nn.Module):
    """Steps for 1/2 |A x - y|^2 + weight |x|_1, with a learnable weight."""

    def __init__(self, learn=(), acceleration=None) -> None:
        super().__init__()
        solver = bl.ForwardBackward()
        self.net = bl.unrolled(solver, STEPS, learn=learn, acceleration=acceleration)
        self.log_weight = nn.Parameter(torch.tensor(0.1).log())

    def trajectory(self, y: Tensor) -> list[Tensor]:
        energy = bl.LeastSquares(y) @ bl.Matrix(MATRIX) + self.log_weight.exp() * bl.L1()
        return self.net.trajectory(energy, y.new_zeros(len(y), N))


# name: (net, training steps, learning rate of the matrices)
NETS: dict[str, tuple[Callable[[], nn.Module], int, float]] = {
    "ISTA, weight learned": (Lasso, 40, 0.0),
    "FISTA, weight learned": (lambda: Lasso(acceleration=bl.Nesterov()), 40, 0.0),
    "ISTA, weight and step sizes learned": (lambda: Lasso(["step_size"]), 100, 0.0),
    "HyperLISTA": (lambda: HyperLISTA(MATRIX, STEPS), 150, 0.0),
    "ALISTA": (lambda: ALISTA(MATRIX, STEPS), 200, 0.0),
    "LISTA-CP": (lambda: CoupledLISTA(MATRIX, STEPS), 500, 5e-4),
    "LISTA-CPSS": (lambda: CoupledLISTA(MATRIX, STEPS, spare=0.012), 300, 5e-4),
    "LISTA": (lambda: LISTA(MATRIX, STEPS), 300, 5e-4),
}


def train(net: nn.Module, steps: int, rate: float) -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = [p for p in net.parameters() if p.ndim == 2]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": others, "lr": 0.02}, {"params": matrices, "lr": rate}]
    optimizer = torch.optim.Adam([group for group in groups if group["params"]])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        y, x = draw(BATCH, generator)
        loss = torch.stack([decibels(found, x) for found in net.trajectory(y)[1:]]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


def row(name: str, data: tuple[Tensor, Tensor]) -> dict:
    make, steps, rate = NETS[name]
    net = make()
    start = time.process_time()
    train(net, steps, rate)
    seconds = time.process_time() - start
    y, x = data
    with torch.no_grad():
        curve = [float(decibels(found, x)) for found in net.trajectory(y)]
    count = sum(p.numel() for p in net.parameters())
    return {
        "method": name, "parameters": count, "training steps": steps, "seconds": seconds,
        "NMSE, dB": curve[-1], "curve": curve,
    }  # fmt: skip


def by_hand(net: LISTA | CoupledLISTA, y: Tensor) -> Tensor:
    """The net in plain torch, on its own parameters."""
    found = y.new_zeros(len(y), N)
    for k, log in enumerate(net.log_threshold):
        if isinstance(net, LISTA):
            moved = torch.addmm(y @ net.encode[k], found, net.inhibit[k])
        else:
            moved = found - torch.addmm(-y, found, MATRIX.T) @ net.encode[k]
        threshold = log.exp()
        found = moved - moved.clamp(-threshold, threshold)
    return found


def overhead(name: str, net: LISTA | CoupledLISTA) -> dict:
    """A training step's forward and backward against plain torch."""
    y, x = draw(512, torch.Generator().manual_seed(2))

    def step(found: Callable[[Tensor], Tensor]) -> None:
        (found(y) - x).square().sum().backward()

    plain = partial(by_hand, net)
    both = [
        (processor_seconds(lambda: step(net)), processor_seconds(lambda: step(plain)))
        for _ in range(15)
    ]
    a, b = (min(times) for times in zip(*both, strict=True))
    return {
        "method": f"a training step of {name}, ours / plain torch",
        "seconds": a,
        "ratio": a / b,
    }


def trained() -> list[dict]:
    data, rows = draw(1000, torch.Generator().manual_seed(99)), []
    for name in NETS:
        rows.append(row(name, data))
        print(name, rows[-1]["NMSE, dB"], rows[-1]["seconds"], flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    if "overhead" in sys.argv:
        rows = [row for row in former("learned_sparse") if row["method"] in NETS]
    else:
        rows = trained()
    rows += [overhead(name, NETS[name][0]()) for name in ("LISTA-CP", "LISTA")]
    notes = (
        "seconds: of the processor, for the training, in one thread; in the last rows of one "
        "forward and backward pass, batch 512, the best of alternated rounds. The machine was "
        "shared, so seconds are upper bounds."
    )
    columns = ["method", "parameters", "training steps", "seconds", "NMSE, dB", "ratio"]
    store("learned_sparse", "Sparse codes by learned steps", rows, columns, notes)


if __name__ == "__main__":
    main()
