"""Points near y: the proxes and projections that have a formula for each pattern."""

from __future__ import annotations

from itertools import accumulate, product

import torch
from torch import Tensor

from ...terms.cones import Monotone
from ...terms.matrices import Nuclear
from ...terms.norms import L1, L2
from ...terms.sets import L2Ball, Simplex
from ...terms.smooth import LeastSquares
from ...terms.total_variation import TotalVariation
from .base import SolutionMap, Theta

_SLACK = 1e-14  # of a constraint, for rounding


def _near(x: Tensor, t: Theta) -> Tensor:
    return (x - t["y"]).square().sum() / 2


def _data(t: Theta) -> LeastSquares:
    return LeastSquares(t["y"][None])


def _draw(*shape: int, **scalars: tuple[float, float]):
    """y of the shape, 2 N(0, 1), and scalars between two numbers."""

    def draw(generator: torch.Generator) -> Theta:
        y = 2 * torch.randn(shape, generator=generator, dtype=torch.float64)
        unit = {name: torch.rand((), generator=generator, dtype=y.dtype) for name in scalars}
        return {"y": y, **{k: lo + (hi - lo) * unit[k] for k, (lo, hi) in scalars.items()}}

    return draw


soft_threshold = SolutionMap(
    "soft threshold",
    "1/2 |x - y|^2 + w |x|_1",
    _draw(4, w=(0.5, 2)),
    lambda x, t: _near(x, t) + t["w"] * x.abs().sum(),
    lambda t: _data(t) + t["w"] * L1(),
    tuple(product((-1, 0, 1), repeat=4)),
    lambda t, signs: (s := torch.tensor(signs).to(t["y"])).abs() * t["y"] - t["w"] * s,
)

group_threshold = SolutionMap(
    "group threshold",
    "1/2 |x - y|^2 + w |x|_2",
    _draw(4, w=(1, 5)),
    lambda x, t: _near(x, t) + t["w"] * x.norm(),
    lambda t: _data(t) + t["w"] * L2(),
    (False, True),
    lambda t, active: (1 - t["w"] / t["y"].norm()) * t["y"] if active else 0 * t["y"],
)

ball = SolutionMap(
    "ball",
    "1/2 |x - y|^2 over |x|_2 <= r",
    _draw(4, r=(2, 5)),
    lambda x, t: _near(x, t).masked_fill(x.norm() > t["r"] * (1 + _SLACK), torch.inf),
    lambda t: _data(t) + L2Ball(t["r"]),
    (False, True),
    lambda t, active: t["r"] / t["y"].norm() * t["y"] if active else 1 * t["y"],
)


def _on_simplex(x: Tensor, t: Theta) -> Tensor:
    return _near(x, t).masked_fill((x < -_SLACK).any(), torch.inf)  # the sum is right by formula


def _simplex(t: Theta, support: tuple[bool, ...]) -> Tensor:
    on = torch.tensor(support)
    return torch.where(on, t["y"] - (t["y"][on].sum() - t["total"]) / on.sum(), 0.0)


simplex = SolutionMap(
    "simplex",
    "1/2 |x - y|^2 over x >= 0, sum x = total",
    _draw(5, total=(0.5, 2)),
    _on_simplex,
    lambda t: _data(t) + Simplex(t["total"]),
    tuple(p for p in product((False, True), repeat=5) if any(p)),
    _simplex,
)


def _segments(jumps: tuple[int, ...]) -> Tensor:
    """Which segment each of the points lies in."""
    return torch.tensor([0, *accumulate(int(jump != 0) for jump in jumps)])


def _means(y: Tensor, segment: Tensor) -> tuple[Tensor, Tensor]:
    """(mean, number of points) of each segment."""
    member = torch.nn.functional.one_hot(segment).to(y)
    size = member.sum(0)
    return y @ member / size, size


def _total_variation(t: Theta, jumps: tuple[int, ...]) -> Tensor:
    """Each segment at its mean, moved by w / size towards the neighbours it jumps from and to."""
    segment, (mean, size) = _segments(jumps), _means(t["y"], _segments(jumps))
    up = torch.tensor([0, *(jump for jump in jumps if jump), 0]).to(mean)
    return (mean - t["w"] * (up[:-1] - up[1:]) / size)[segment]


total_variation = SolutionMap(
    "total variation in 1-D",
    "1/2 |x - y|^2 + w sum |x_{i+1} - x_i|",
    _draw(5, w=(0.2, 1)),
    lambda x, t: _near(x, t) + t["w"] * x.diff().abs().sum(),
    lambda t: _data(t) + t["w"] * TotalVariation(dims=1),
    tuple(product((-1, 0, 1), repeat=4)),
    _total_variation,
)


def _isotonic(t: Theta, jumps: tuple[int, ...]) -> Tensor:
    segment = _segments(jumps)
    return _means(t["y"], segment)[0][segment]


isotonic = SolutionMap(
    "isotonic regression",
    "1/2 |x - y|^2 over x_1 <= x_2 <= ...",
    _draw(5),
    lambda x, t: _near(x, t).masked_fill((x.diff() < -_SLACK).any(), torch.inf),
    lambda t: _data(t) + Monotone(),
    tuple(product((0, 1), repeat=4)),
    _isotonic,
)


def _low_rank(t: Theta, rank: int) -> Tensor:
    U, s, Vh = torch.linalg.svd(t["y"], full_matrices=False)
    return U[:, :rank] @ ((s[:rank] - t["w"])[:, None] * Vh[:rank])


low_rank = SolutionMap(
    "low rank",
    "1/2 |x - y|^2 + w (sum of singular values)",
    _draw(4, 3, w=(1, 4)),
    lambda x, t: _near(x, t) + t["w"] * torch.linalg.svdvals(x).sum(),
    lambda t: _data(t) + t["w"] * Nuclear(),
    (0, 1, 2, 3),
    _low_rank,
)
