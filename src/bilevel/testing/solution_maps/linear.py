"""Linear programs, plain and with entropy: matrix games of two players, optimal transport."""

from __future__ import annotations

import torch
from torch import Tensor

from ...operators.matrix import Matrix
from ...problem import Problem
from ...terms.affine import Affine
from ...terms.logarithms import Entropy
from ...terms.max_norms import Linf
from ...terms.quadratic import Quadratic
from ...terms.sets import Simplex
from .base import SolutionMap, Theta


def _payoffs(generator: torch.Generator) -> Theta:
    return {"A": 1 + 4 * torch.rand(2, 2, generator=generator, dtype=torch.float64)}


def _strategy(t: Theta, pattern: str) -> Tensor:
    """Pure, or mixed so that both columns pay the same."""
    (a, b), (c, d) = t["A"]
    first = {"mixed": (d - c) / (a - b - c + d), "first": 0 * a + 1, "second": 0 * a}[pattern]
    return torch.stack([first, 1 - first])


def _worst_payment(x: Tensor, t: Theta) -> Tensor:
    return (t["A"].mT @ x).amax().masked_fill((x < 0).any(), torch.inf)


game = SolutionMap(
    "matrix game",
    "max_j (A^T x)_j over x >= 0, sum x = 1: the strategy of the player who pays A_ij > 0",
    _payoffs,
    _worst_payment,
    lambda t: Linf() @ Matrix(t["A"].mT) + Simplex(),  # A > 0: the largest entry is the norm
    ("mixed", "first", "second"),
    _strategy,
)

# of four plan entries row by row: both row sums and the first column sum; the second follows
_SUMS = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [1, 0, 1, 0]], dtype=torch.float64)


def _shipments(generator: torch.Generator) -> Theta:
    r, c = 0.2 + 0.6 * torch.rand(2, generator=generator, dtype=torch.float64)
    cost = torch.randn(2, 2, generator=generator, dtype=torch.float64)
    temperature = 0.5 + torch.rand((), generator=generator, dtype=torch.float64)
    return {"cost": cost, "row": r, "column": c, "temperature": temperature}


def _plan(t: Theta, _: object) -> Tensor:
    """p of p (1 - r - c + p) = k (r - p) (c - p), which is the root between 0 and min(r, c)."""
    r, c, cost = t["row"], t["column"], t["cost"]
    k = ((cost[0, 1] + cost[1, 0] - cost[0, 0] - cost[1, 1]) / t["temperature"]).exp()
    linear = 1 - r - c + k * (r + c)  # (1 - k) p^2 + linear p - k r c = 0
    p = 2 * k * r * c / (linear + (linear.square() + 4 * (1 - k) * k * r * c).sqrt())
    return torch.stack([p, r - p, c - p, 1 - r - c + p])


def _transport(t: Theta) -> Problem:
    sums = torch.stack([t["row"], 1 - t["row"], t["column"]])
    zero = torch.zeros(4, 4, dtype=torch.float64)
    linear = Quadratic(zero, t["cost"].reshape(1, 4))
    return linear + t["temperature"] * Entropy() + Affine(_SUMS, sums)


transport = SolutionMap(
    "entropic transport",
    "<cost, x> + temperature sum x log x over plans x >= 0 with given row and column sums",
    _shipments,
    lambda x, t: x @ t["cost"].flatten() + t["temperature"] * torch.xlogy(x, x).sum(),
    _transport,
    ((),),
    _plan,
)
