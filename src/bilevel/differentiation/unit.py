"""Where I - dT/dz is known to be I: T is a Newton step with a sound factor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .linear_solvers import LinearSolution, LinearSolver, Product


@dataclass(frozen=True)
class Unit(LinearSolver):
    """w = b: for an M that is known to be I, and so not measured."""

    def __call__(self, product: Product, b: Tensor, **_: object) -> LinearSolution:
        none = b.new_zeros(len(b))
        return LinearSolution(b, none, 0, none == 0)

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        return b, 0
