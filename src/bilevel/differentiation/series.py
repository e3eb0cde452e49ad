"""The Neumann series, as long as a target error asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .._broadcast import tiny
from .linear_solvers import LinearSolution, LinearSolver, Product

_WINDOW = 10  # terms over which the contraction is measured


@dataclass(frozen=True)
class Series(LinearSolver):
    """w = b + J b + J^2 b + ..., J = I - M, until what is left out is at most tol |w|.

    After the term J^k b that is at most rho / (1 - rho) |J^k b|, rho the contraction of J, measured
    over the last ten terms: an estimate. A slower part of J that is too small still to be seen
    escapes it. It stands as the residual, so that a series cut off by max_iter is told of.
    """

    max_iter: int = 20_000

    def __call__(
        self, product: Product, b: Tensor, *, tol: float = 1e-10, **options: Any
    ) -> LinearSolution:  # neither a start nor a scale plays a part
        goal = self.tol or tol
        term = total = answer = b
        left, size, k = torch.full_like(b[:, 0], torch.inf), _length(b), 0
        while k < self.max_iter and bool((left > goal).any()):
            for _ in range(_WINDOW):
                term = term - product(term)
                total = total + term
            k += _WINDOW
            before, size = size, _length(term)
            rho = (size / before.clamp_min(tiny(b))).pow(1 / _WINDOW)
            tail = torch.where(rho < 1, size * rho / (1 - rho), torch.inf)
            tail = torch.where(size > 0, tail, 0.0) / _length(total).clamp_min(tiny(b))
            alive = left > goal
            answer = torch.where(alive[:, None], total, answer)
            left = torch.where(alive, tail, left)
        return LinearSolution(answer, left, k, left <= goal)

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        raise NotImplementedError("a series has no start to go on from")


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)
