"""Solvers that find z in one call; a T with the same fixed points certifies it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Protocol, Self

from torch import Tensor

from .._broadcast import Scalar
from ..acceleration import Acceleration
from ..problem import Problem
from .base import Solver, Z


class Limits(Protocol):
    """What `solve` may spend."""

    tol: float
    max_iter: int

    def out_of_time(self) -> bool: ...


class External(Solver):
    """z found by `solve`; `step` is a T with the same fixed points.

    The run looks at the answer by one step of T: a residual below the tolerance certifies it, and
    T is what gets differentiated. Where the answer is not that good the run goes on with T.
    """

    recordable = False  # `solve` is no sequence of steps

    @abstractmethod
    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        """(z, iterations (B,)), without a graph."""


@dataclass(frozen=True, eq=False)
class Borrowed(External):
    """An external solver whose T is that of an iterative one, `by`."""

    by: Solver

    def prepare(self, problem: Problem, x0: Tensor) -> Self:
        return replace(self, by=self.by.prepare(problem, x0))

    def step(self, problem: Problem, z: Z) -> Z:
        return self.by.step(problem, z)

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return self.by.start(problem, x0)

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return self.by.primal(problem, z)

    def dual(self, problem: Problem, z: Z) -> Z:
        return self.by.dual(problem, z)

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        return self.by.assemble(problem, x, y)

    def averaged(self, problem: Problem, z: Z) -> Z:
        return self.by.averaged(problem, z)

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        return self.by.reflection(problem, x)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return self.by.acceleration(problem, x0, tol)

    def take(self, index: Tensor) -> Self:
        return replace(super().take(index), by=self.by.take(index))
