"""Gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from .._broadcast import Scalar, expand
from ..acceleration import Acceleration, Backtracking, ExactLineSearch, Plain
from ..problem import Problem
from .base import Solver, Z, names, refuse
from .steps import LEAST, below, lipschitz, positive


@dataclass(frozen=True, eq=False)
class GradientDescent(Solver):
    """min f(x): T(x) = x - step_size grad f(x). Converges for step_size < 2 / L.

    By default the run uses an exact line search for quadratics and backtracking otherwise; T keeps
    its constant step.
    """

    step_size: Scalar | None = None  # default 0.95 / L

    batched = ("step_size",)

    def check(self, problem: Problem) -> None:
        if problem.f is None or problem.g is not None or problem.h:
            instead = "Use PrimalDual()." if problem.h else "Use ForwardBackward()."
            raise refuse(self, "a smooth energy", names(problem.terms), instead)

    def prepare(self, problem: Problem, x0: Tensor) -> GradientDescent:
        assert problem.f is not None
        if self.step_size is None:
            return replace(self, step_size=0.95 / lipschitz(problem.f, x0))
        step = positive("step_size", self.step_size, x0)
        if problem.f.lipschitz_known:
            below("step_size", step, 2 / lipschitz(problem.f, x0), "2 / L", least=LEAST)
        return replace(self, step_size=step)

    def step(self, problem: Problem, z: Z) -> Z:
        (x,) = z
        assert problem.f is not None and self.step_size is not None
        return (x - expand(self.step_size, x) * problem.f.grad(x),)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        assert problem.f is not None
        if not problem.f.potential:
            return Plain()
        return ExactLineSearch() if problem.f.quadratic else Backtracking()
