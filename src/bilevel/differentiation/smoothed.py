"""The classical way around non-smoothness: smooth the energy, then differentiate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from .._tangents import constant
from ..fixpoint import Fixpoint
from ..problem import Problem
from ..terms.envelopes import MoreauEnvelope
from .base import Strategy
from .implicit import Implicit

if TYPE_CHECKING:
    from ..iteration.driver import Run

Z = tuple[Tensor, ...]


@dataclass(frozen=True)
class Smoothed(Strategy):
    """dx/dθ = -(∇²E_eps)^-1 ∂θ∇E_eps at the minimiser of E_eps = f + env g + sum env h_i(K_i x).

    env h(v) = min_u h(u) + |u - v|^2 / (2 eps): of L1 it is Huber's function, of a set half the
    squared distance over eps. To be compared with: the answer itself is that of E_eps, off by
    O(eps); it is not sparse, leaves its constraints by O(eps), and takes more steps the smaller
    eps, as the condition number grows like 1 / eps. Right for E_eps to derivative 2, and no limit
    for eps -> 0 is promised where the solution has a kink.

    [1] Nesterov. Smooth minimization of non-smooth functions. Math. Programming, 2005.
    [2] Kunisch, Pock. A bilevel optimization approach for parameter learning in variational models.
        SIIMS, 2013.
    """

    eps: float

    def __post_init__(self) -> None:
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"Smoothed needs eps > 0, the smoothing, got {self.eps}.")

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        from ..choice import default_solver  # which knows the strategies

        problem = smoothed(fixpoint.problem, self.eps)
        x0 = fixpoint.primal(z0)
        with constant():
            solver = default_solver(problem, x0)
            rule = solver.acceleration(problem, x0, run.tol)
        run = replace(run, acceleration=rule)
        (x,) = Implicit()(run, Fixpoint(problem, solver), (x0,))
        y = tuple(MoreauEnvelope(h.outer, self.eps).grad(h.operator(x)) for h in fixpoint.problem.h)
        return fixpoint.solver.assemble(fixpoint.problem, x, y)


def smoothed(problem: Problem, eps: float) -> Problem:
    """The problem with every term that is not smooth replaced by its Moreau envelope."""
    terms = [problem.f] if problem.f is not None else []
    terms += [MoreauEnvelope(problem.g, eps)] if problem.g is not None else []
    return Problem((*terms, *(MoreauEnvelope(h.outer, eps) @ h.operator for h in problem.h)))
