"""The default solver and strategy, by the problem's structure."""

from __future__ import annotations

import torch
from torch import Tensor

from .differentiation.active import manifolds_known
from .differentiation.base import Strategy
from .differentiation.explicit import Explicit
from .differentiation.flat_zones import covered
from .differentiation.implicit import FixedPoint, Implicit
from .differentiation.partly_smooth import PartlySmooth
from .problem import Problem
from .solvers.active_set import InteriorPoint
from .solvers.base import Solver
from .solvers.descent import GradientDescent
from .solvers.direct_prox import DirectProx, single_prox
from .solvers.forms import diagonalised
from .solvers.forward_backward import ForwardBackward
from .solvers.linear_program import LinearProgram
from .solvers.newton import Newton
from .solvers.primal_dual import PrimalDual
from .solvers.quadratic_program import is_quadratic_program, rows_of
from .solvers.steps import convex
from .terms.base import Dualizable
from .terms.composition import SmoothComposition
from .terms.of_prox import LARGEST
from .terms.smooth import LeastSquares, Smooth

_SMALL = 200  # unknowns a sample, and inequalities, of which matrices are written out
_QUADRATIC = 500  # the same, of an energy that one solve with its Hessian minimises
_FEW = 50  # unknowns between mere bounds, up to which ForwardBackward is no slower
_LOOSE = 1e-3  # of an adjoint that products with the step reach soon
_ROOM = 2**24  # numbers in such matrices, of the whole batch


def default_solver(problem: Problem, x0: Tensor, iterates: bool = False) -> Solver:
    """Prepared. A direct solver where the structure has one, unless one that `iterates` is needed:
    its steps will be recorded, or have been told how to accelerate.

    Else, composed terms, or nothing smooth: PrimalDual. A smooth energy with an unknown Lipschitz
    constant: GradientDescent with backtracking. Else ForwardBackward with momentum, and without for
    a VectorField.
    """
    direct = None if iterates else _direct(problem, x0)
    if direct is not None:
        return direct
    if problem.h or problem.f is None:
        return PrimalDual().prepare(problem, x0)
    if problem.g is None and problem.f.potential and not problem.f.lipschitz_known:
        return GradientDescent().prepare(problem, x0)
    return ForwardBackward().prepare(problem, x0)


def default_form(problem: Problem, x0: Tensor, iterates: bool = False) -> Problem:
    """With composed terms, large x, and nothing else that is smooth or strongly convex: convex
    F(Kx) are composed terms, too. PrimalDual takes 2 to 10 times fewer steps by the prox of F than
    by its gradient. As it is where steps are asked for.
    """
    if iterates or not problem.h or x0[:1].numel() <= LARGEST:
        return problem
    behind = [t for t in problem.terms if isinstance(t, SmoothComposition)]
    fit = (isinstance(t.outer, Dualizable) and convex(t.outer, t.operator(x0)) for t in behind)
    dualized = problem.dualized() if all(fit) else problem
    mu = torch.as_tensor(0.0 if dualized.g is None else dualized.g.strong_convexity(x0))
    return problem if dualized.f is not None or bool((mu > 0).any()) else dualized


def _direct(problem: Problem, x0: Tensor) -> Solver | None:
    """One prox: DirectProx. A strongly convex quadratic of few unknowns, or that a transform makes
    diagonal: Newton. One of few unknowns on a polyhedron: InteriorPoint.
    """
    f, g = problem.f, problem.g
    if f is None or not f.quadratic or not len(x0):
        return None
    if g is None and not problem.h:
        return Newton().prepare(problem, x0) if _solvable(f, x0) else None
    if not problem.h and isinstance(f, LeastSquares):
        return DirectProx() if single_prox(f, g, x0) else None
    if not is_quadratic_program(problem) or not _small(x0):
        return None
    rows = rows_of(problem, x0)
    if rows > _SMALL or (not rows and x0.shape[1] < _FEW):
        return None
    solver = InteriorPoint().prepare(problem, x0)
    assert solver.program is not None
    return None if solver.program.factor is None else solver  # singular: maybe no unique solution


def _solvable(f: Smooth, x: Tensor) -> bool:
    if diagonalised(f, x) is not None:
        return True
    mu, small = f.strong_convexity(x), _small(x, _QUADRATIC)
    return small and (bool((mu > 0).all()) if isinstance(mu, Tensor) else mu > 0)


def _small(x: Tensor, most: int = _SMALL) -> bool:
    n = x[0].numel()
    return x.ndim == 2 and n <= most and len(x) * n * n <= _ROOM


def default_strategy(
    problem: Problem, solver: Solver, x: Tensor, adjoint_tol: float = 0.0
) -> Strategy:
    """An explicit solver: its formula. A linear program, and composed terms of large x unless few
    digits of the adjoint do, or total variation denoises an image: PartlySmooth, by factors. A
    smooth energy: Implicit, by its Hessian. Else, for a VectorField, or where a step of the solver
    solves with that Hessian, FixedPoint. All right to second order."""
    if solver.explicit:
        return Explicit()
    f, composed = problem.f, problem.h and x[:1].numel() > LARGEST
    if isinstance(solver, LinearProgram):
        return PartlySmooth()
    if solver.newton or not (f is None or f.potential):
        return FixedPoint()
    easy = adjoint_tol >= _LOOSE or (composed and covered(problem, x) is not None)
    if composed and not easy and manifolds_known(problem, x):
        return PartlySmooth()
    return FixedPoint() if f is None or problem.g is not None or problem.h else Implicit()
