"""Differentiate the equation that the solution satisfies: z = T(z), or the KKT conditions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from .._tangents import constant
from .base import Strategy
from .chord import differentiable
from .conditions import Conditions
from .linear_solvers import LinearSolver, Neumann
from .pieces import Pieces
from .series import Series
from .unit import Unit

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run
    from ..problem import Problem
    from .system import Direct

Z = tuple[Tensor, ...]


def check_order(order: int) -> None:
    if not isinstance(order, int) or order < 1:
        raise ValueError(
            f"order must be 1 or more, got {order!r}: the highest derivative that will be taken."
        )


def _check(strategy: FixedPoint | Implicit) -> None:
    solver = strategy.linear_solver
    check_order(strategy.order)
    if solver is not None and not isinstance(solver, LinearSolver):
        raise TypeError(
            f"linear_solver must be a LinearSolver such as GMRES() or CG(), got {solver!r}. Leave "
            "it out to have it chosen by size."
        )


@dataclass(frozen=True)
class FixedPoint(Strategy):
    """dz/dθ = (I - ∂T/∂z)^+ ∂T/∂θ, solved at the fixed point; right up to derivative `order`, which
    is refused beyond.

    Memory does not depend on the number of iterations. I - ∂T/∂z is singular where a dual is not
    unique (2-D TV); the derivative of x exists all the same, and is found by a solver that can bear
    it.
    """

    linear_solver: LinearSolver | None = None  # default: dense for small problems, else GMRES
    order: int = 2

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        arrived = run.arrive(fixpoint, z0) if self.linear_solver is None else None
        z = None if arrived is None else self._recorded_step(run, z0, *arrived)
        if z is not None:
            return z
        with constant():
            z = run(fixpoint, z0)
        return at_fixed_point(run, fixpoint, z, self.order, self.linear_solver)

    def _recorded_step(self, run: Run, z0: Z, fixpoint: Fixpoint, first: Z) -> Z | None:
        """T(first): the step that proves an answer is the one that carries the derivative."""
        z = differentiable(
            first, fixpoint.residual, Unit(), self.order, run.adjoint_tol, run.on_fail,
            run.certificate, made=True,
        )  # fmt: skip
        with constant():
            return z if run.shown(fixpoint, z0, first, tuple(part.detach() for part in z)) else None


def at_fixed_point(
    run: Run, fixpoint: Fixpoint, z: Z, order: int, solver: LinearSolver | None = None
) -> Z:
    """z with the derivatives of the solution of z = T(z)."""
    with constant():
        z = fixpoint.landed(z, run.tol)
        fixpoint = fixpoint.near(z)
    return differentiable(
        z,
        fixpoint.residual,
        solver or (Unit() if fixpoint.solver.flat else None),
        order,
        run.adjoint_tol,
        run.on_fail,
        run.certificate,
    )


@dataclass(frozen=True)
class Implicit(Strategy):
    """dz/dθ = -(∂F/∂z)^+ ∂F/∂θ for the optimality conditions F(z) = 0, whichever solver found the
    solution.

    Smooth energies: F = grad f(x), and a large Hessian is solved by CG. With prox-able and composed
    terms: F is the KKT residual of `Problem.kkt` in (x, y).

    With `recompute` nothing that F recorded is kept from the solution to the backward pass: F is
    recorded once again for the adjoint system and once for ∂F/∂θ, of a few samples at a time, and
    let go, for two evaluations of F more and the memory of z. The tensors that the problem holds
    must not be changed in place in between, as for torch.utils.checkpoint.
    """

    linear_solver: LinearSolver | None = None  # default: by the size and kind of the system
    order: int = 2
    recompute: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        point = solution(run, fixpoint, z0)
        direct = _factor(fixpoint) if self.linear_solver is None else None
        return at_optimality(
            run, fixpoint, point, self.order, self.linear_solver, direct, self.recompute
        )


def _factor(fixpoint: Fixpoint) -> Callable[[Problem], Direct] | None:
    """By the factor of the Hessian that has ended the run, if one has."""
    if not fixpoint.factor:
        return None
    (H,) = fixpoint.factor
    return lambda _problem: lambda _point: lambda b, transposed: (H.solve(b[0]),)


def solution(run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
    """(x, y_1, ...), whichever solver found it."""
    with constant():
        z = run(fixpoint, z0)
        return (fixpoint.primal(z), *fixpoint.dual(z))


def at_optimality(
    run: Run,
    fixpoint: Fixpoint,
    point: Z,
    order: int,
    solver: LinearSolver | None = None,
    direct: Callable[[Problem], Direct] | None = None,
    recompute: bool = False,
) -> Z:
    """z with the derivatives of the solution of `Problem.kkt` = 0."""
    problem = fixpoint.problem
    x, *y = differentiable(
        point,
        Conditions(problem, direct),
        solver,
        order,
        run.adjoint_tol,
        run.on_fail,
        run.certificate,
        None if direct is None else direct(problem),
        problem if problem.g is None and not problem.h else None,
        Pieces(problem, point[0]) if recompute else None,
    )
    return fixpoint.solver.assemble(problem, x, tuple(y))


@dataclass(frozen=True)
class Truncated(Strategy):
    """dz/dθ ≈ sum_{j<k} (∂T/∂z)^j ∂T/∂θ, everything frozen at the solution: k steps of
    backpropagation, one stored.

    Biased by about the k-th power of T's contraction; memory independent of k; first derivatives
    only. Truncated(error=1e-3) takes as many terms as the contraction, measured along the series,
    asks for, and raises where 20 000 are too few; the certificate's adjoint residual is the
    estimated error then. damping d: of z + d (T(z) - z) instead of T, the phantom gradients of
    equilibrium layers, for a T that turns more than it contracts.
    [1] Brauer, Lorenz. Asymptotic analysis and truncated backpropagation for the unrolled
    primal-dual algorithm. 2023.
    """

    terms: int | None = None
    error: float | None = None  # of the adjoint, relative, in place of the number of terms
    damping: float = 1.0

    def __post_init__(self) -> None:
        if (self.terms is None) == (self.error is None):
            raise ValueError(
                f"Truncated needs a number of terms or an error, got {self.terms} and "
                f"{self.error}: Truncated(100) or Truncated(error=1e-3)."
            )
        if self.terms is not None and self.terms < 1:
            raise ValueError(f"Truncated needs at least 1 term, got {self.terms}.")
        if self.error is not None and not 0 < self.error < 1:
            raise ValueError(f"Truncated needs an error between 0 and 1, got {self.error}.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Truncated needs a damping in (0, 1], got {self.damping}.")
        if self.error is not None and self.damping < 1:
            raise ValueError("Truncated takes a damping with a number of terms, not with an error.")

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        if self.terms is None:
            series: LinearSolver = Series(tol=self.error)
        else:
            series = Neumann(terms=self.terms, damping=self.damping)
        return FixedPoint(series, order=1)(run, fixpoint, z0)


@dataclass(frozen=True)
class OneStep(Strategy):
    """dz/dθ ≈ ∂T/∂θ: differentiate the last step only. Cheap; biased unless T contracts strongly
    (Bolte et al. 2023)."""

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        return Truncated(1)(run, fixpoint, z0)
