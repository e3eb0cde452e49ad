"""What a strategy sees: the problem, its solver's T, and how to read the solution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

from torch import Tensor

from ._broadcast import Scalar, difference
from ._remembered import Remembered
from ._tangents import differentiates
from .problem import Problem
from .solvers.base import Solver, Z

if TYPE_CHECKING:
    from .kernels.rof import ROF
    from .solvers.forms import Form


@dataclass(frozen=True, eq=False)
class Move:
    """z - T(z), the residual of a fixed point: its derivative is I - dT/dz."""

    T: Callable[[Z], Z]

    def __call__(self, z: Z) -> Z:
        return difference(z, self.T(z))


@dataclass(frozen=True, eq=False)
class Fixpoint:
    """z = T(z), for a prepared solver."""

    problem: Problem
    solver: Solver
    factor: list[Form] = field(default_factory=list, init=False, repr=False)  # that ended a run
    _kernel: list[ROF | None] = field(default_factory=list, init=False, repr=False)

    def T(self, z: Z) -> Z:
        kernel = self.kernel(z)
        return self._step(*z) if kernel is None else kernel.T(z)

    @cached_property
    def _step(self) -> Callable[..., Z]:
        """A step with a matrix of its own is not made twice, for a look and to go on from there."""
        step = partial(_step, self.solver, self.problem)
        return Remembered(step) if self.solver.newton else step

    def kernel(self, z: Z) -> ROF | None:
        """A compiled implementation of this T, where there is one and nothing is recorded."""
        if differentiates():
            return None
        if not self._kernel:
            self._kernel.append(self.solver.kernel(self.problem, z))
        return self._kernel[0]

    @property
    def residual(self) -> Move:
        """z -> z - T(z)"""
        return Move(self.T)

    def change(self, z: Z, t: Z, floor: Scalar = 0.0) -> Tensor:  # -> (B,)
        """The relative size of z - t, t = T(z), by the solver's measure."""
        return self.solver.residual(self.problem, z, t, floor)

    def landed(self, z: Z, tol: float) -> Z:
        return self.solver.landed(self.problem, z, tol)

    def near(self, z: Z) -> Fixpoint:
        """The same, ready for many steps at and around z."""
        return Fixpoint(self.problem, self.solver.near(self.problem, z))

    def averaged(self, z: Z) -> Z:
        return self.solver.averaged(self.problem, z)

    def relaxed(self, z: Z, rho: Scalar) -> Z:
        return self.solver.relaxed(self.problem, z, rho)

    def primal(self, z: Z) -> Tensor:
        return self.solver.primal(self.problem, z)

    def dual(self, z: Z) -> Z:
        return self.solver.dual(self.problem, z)

    def gap(self, z: Z, floor: Tensor | float = 0.0) -> Tensor | None:  # -> (B,)
        kernel = self.kernel(z)
        if kernel is None:
            return self.problem.gap(self.primal(z), self.dual(z), floor)
        return kernel.gap(z, floor)

    def value(self, z: Z) -> Tensor:  # -> (B,)
        """The energy at the primal of z."""
        kernel = self.kernel(z)
        return self.problem.value(self.primal(z)) if kernel is None else kernel.value(z)

    def take(self, index: Tensor, z: Z) -> Fixpoint | None:
        """The fixed point of the samples `index` of the batch z; None if the problem cannot be
        indexed."""
        problem = self.problem.take(index, self.primal(z))
        return None if problem is None else Fixpoint(problem, self.solver.take(index))


def _step(solver: Solver, problem: Problem, *z: Tensor) -> Z:
    return solver.step(problem, z)
