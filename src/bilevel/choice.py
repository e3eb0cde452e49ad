"""The default solver and strategy, by the problem's structure."""

from __future__ import annotations

from .differentiation.base import Strategy
from .differentiation.implicit import FixedPoint, Implicit
from .problem import Problem
from .solvers.base import Solver
from .solvers.descent import GradientDescent
from .solvers.forward_backward import ForwardBackward
from .solvers.primal_dual import PrimalDual


def default_solver(problem: Problem) -> Solver:
    """Composed terms, or nothing smooth: PrimalDual. A smooth energy with an unknown Lipschitz
    constant: GradientDescent with backtracking. Else ForwardBackward with momentum, and without for
    a VectorField.
    """
    if problem.h or problem.f is None:
        return PrimalDual()
    if problem.g is None and problem.f.potential and not problem.f.lipschitz_known:
        return GradientDescent()
    return ForwardBackward()


def default_strategy(problem: Problem) -> Strategy:
    """A smooth energy: Implicit, by its Hessian. Else, and for a VectorField, FixedPoint. Both
    right to second order."""
    smooth = problem.f is not None and problem.f.potential
    return Implicit() if smooth and problem.g is None and not problem.h else FixedPoint()
