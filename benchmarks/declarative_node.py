"""TV denoising as a node of a network: its exact derivative against autograd through descent.

python benchmarks/declarative_node.py     results in benchmarks/results/declarative_node.md

Upper level: 1/2 |y*(x) - target|^2 in the data x; lower level: y*(x), 1-D total variation, n = 2 to
2^17. Against the exact prox stands gradient descent with backtracking on the lower energy, with
|t|, or sqrt(t^2 + 1e-6) for it, at most 300 steps, and autograd through them. Times are of the
processor, in one thread.
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import processor_seconds, store
from torch import Tensor
from torch.nn.functional import pad

import bilevel as bl

WEIGHT = 1.0
TV = WEIGHT * bl.TotalVariation(dims=1)
SMOOTHINGS = {"descent": 0.0, "descent, smoothed": 1e-6}


def problem(n: int) -> tuple[Tensor, Tensor]:
    """(data, target): steps of 100 samples in the mean, with noise and without."""
    generator = np.random.default_rng(n)
    cuts = np.sort(generator.integers(0, n, max(1, n // 100)))
    levels = generator.standard_normal(len(cuts) + 1)
    target = torch.from_numpy(levels[np.searchsorted(cuts, np.arange(n), side="right")])
    return target + 0.3 * torch.from_numpy(generator.standard_normal(n)), target


def node(x: Tensor) -> Tensor:
    return TV.prox(x[None], 1.0)[0]


def energy(y: Tensor, x: Tensor, smoothing: float = 0.0) -> Tensor:
    jumps = y.diff()
    size = (jumps.square() + smoothing).sqrt() if smoothing else jumps.abs()
    return (y - x).square().sum() / 2 + WEIGHT * size.sum()


def descent(x: Tensor, smoothing: float, steps: int = 300) -> Tensor:
    """Gradient descent by Armijo's rule, the step doubled before each search."""
    y, step = x.clone(), 1.0
    value = energy(y, x, smoothing)
    for _ in range(steps):
        jumps = y.diff()
        slope = jumps / (jumps.square() + smoothing).sqrt() if smoothing else jumps.sign()
        gradient = y - x + WEIGHT * (pad(slope, (1, 0)) - pad(slope, (0, 1)))
        decrease = float(gradient.detach().square().sum()) / 2
        step *= 2
        while True:
            trial = y - step * gradient
            new = energy(trial, x, smoothing)
            if float(new.detach()) <= float(value.detach()) - step * decrease:
                break
            step /= 2
            if step < 1e-12:
                return y
        gained = float((value - new).detach())
        y, value = trial, new
        if gained <= 1e-9 * float(value.detach()):
            break
    return y


def measured(function: Callable[[Tensor], Tensor], n: int) -> tuple[dict, Tensor, Tensor]:
    """(times, y, the gradient of the upper objective in x)."""
    data, target = problem(n)
    x = data.clone().requires_grad_()
    forward = processor_seconds(lambda: function(x))
    y = function(x)
    loss = (y - target).square().sum() / 2
    backward = processor_seconds(lambda: torch.autograd.grad(loss, x, retain_graph=True))
    (gradient,) = torch.autograd.grad(loss, x)
    times = {"forward": forward, "backward": backward, "total": forward + backward}
    return times, y.detach(), gradient


def by_differences(n: int, gradient: Tensor, h: float = 1e-7) -> float:
    """How far a gradient is from central differences of the converged node, along itself."""
    data, target = problem(n)
    direction = gradient / gradient.norm()
    ends = [(node(data + s * h * direction) - target).square().sum() / 2 for s in (1, -1)]
    return abs(float((ends[0] - ends[1]) / (2 * h) / gradient.norm()) - 1)


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    node(torch.randn(4, dtype=torch.float64).requires_grad_()).sum().backward()  # compiles
    for n in (2**k for k in range(1, 18)):
        data, _ = problem(n)
        times, exact, right = measured(node, n)
        rows.append({"n": n, "method": "node", **times, "excess": 0.0})
        rows[-1]["gradient error"] = by_differences(n, right)
        least_energy = float(energy(exact, data))
        for name, smoothing in SMOOTHINGS.items():
            times, y, gradient = measured(lambda x, s=smoothing: descent(x, s), n)
            rows.append({"n": n, "method": name, **times})
            rows[-1]["excess"] = float(energy(y, data)) / least_energy - 1
            rows[-1]["gradient error"] = float((gradient - right).norm() / right.norm())
        print(*rows[-3:], sep="\n", flush=True)
    columns = ["n", "method", "forward", "backward", "total", "excess", "gradient error"]
    notes = (
        "forward, backward, total: seconds of the processor. excess: of the lower energy. "
        "gradient error: of the upper objective's gradient in the data; of descent relative to the "
        "node's, in norm; of the node against central differences of solutions, along it."
    )
    store("declarative_node", "Total variation as a declarative node", rows, columns, notes)


if __name__ == "__main__":
    main()
