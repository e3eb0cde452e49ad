"""Least squares with a penalty or a constraint on each coordinate: the free ones solve a system."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from ...operators.matrix import Matrix
from ...terms.norms import L1
from ...terms.sets import Box
from ...terms.smooth import LeastSquares
from .base import SolutionMap, Theta

_SIGNS = (-1, 0, 1)


def _misfit(x: Tensor, t: Theta) -> Tensor:
    return (t["A"] @ x - t["b"]).square().sum() / 2


def _data(t: Theta) -> LeastSquares:
    return LeastSquares(t["b"][None]) @ Matrix(t["A"])  # type: ignore[return-value]


def _draw(generator: torch.Generator, rows: int = 6, columns: int = 4) -> Theta:
    A = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    return {"A": A, "b": 2 * torch.randn(rows, generator=generator, dtype=torch.float64)}


def _weighted(generator: torch.Generator) -> Theta:
    uniform = torch.rand((), generator=generator, dtype=torch.float64)
    return {**_draw(generator), "w": 0.5 + 2 * uniform}


def _ridge(t: Theta, _: object) -> Tensor:
    A = t["A"]
    return torch.linalg.solve(A.mT @ A + t["w"] * torch.eye(A.shape[1]).to(A), A.mT @ t["b"])


ridge = SolutionMap(
    "ridge",
    "1/2 |Ax - b|^2 + w/2 |x|^2",
    _weighted,
    lambda x, t: _misfit(x, t) + t["w"] * x.square().sum() / 2,
    lambda t: _data(t) + t["w"] * LeastSquares(),
    ((),),
    _ridge,
)


def _lasso(t: Theta, signs: tuple[int, ...]) -> Tensor:
    s = torch.tensor(signs).to(t["A"])
    free = s != 0
    x, A = torch.zeros_like(s), t["A"][:, free]
    return x.masked_scatter(free, torch.linalg.solve(A.mT @ A, A.mT @ t["b"] - t["w"] * s[free]))


lasso = SolutionMap(
    "lasso",
    "1/2 |Ax - b|^2 + w |x|_1",
    _weighted,
    lambda x, t: _misfit(x, t) + t["w"] * x.abs().sum(),
    lambda t: _data(t) + t["w"] * L1(),
    tuple(product(_SIGNS, repeat=4)),
    _lasso,
)


def _box(t: Theta, sides: tuple[int, ...]) -> Tensor:
    s = torch.tensor(sides)
    free = s == 0
    fixed = torch.where(s < 0, t["lower"], t["upper"]).masked_fill(free, 0.0)
    A = t["A"][:, free]
    solved = torch.linalg.solve(A.mT @ A, A.mT @ (t["b"] - t["A"] @ fixed))
    return fixed.masked_scatter(free, solved)


def _in_box(x: Tensor, t: Theta) -> Tensor:
    outside = ((x < t["lower"] - 1e-14) | (x > t["upper"] + 1e-14)).any()
    return _misfit(x, t).masked_fill(outside, torch.inf)


def _bounds(generator: torch.Generator) -> Theta:
    lower = -0.2 - 0.3 * torch.rand(4, generator=generator, dtype=torch.float64)
    return {**_draw(generator), "lower": lower, "upper": -lower.flip(0)}


box = SolutionMap(
    "box quadratic program",
    "1/2 |Ax - b|^2 over lower <= x <= upper",
    _bounds,
    _in_box,
    lambda t: _data(t) + Box(t["lower"], t["upper"]),
    tuple(product(_SIGNS, repeat=4)),
    _box,
)
