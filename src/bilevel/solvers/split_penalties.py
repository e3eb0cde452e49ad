"""Strongly bent smooth penalties h(Kx), by the prox of h instead of its gradient."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..problem import Problem
from .base import Solver, Z, names, refuse
from .external import Borrowed, Limits
from .forward_backward import ForwardBackward
from .primal_dual import PrimalDual

_INNER = 0.25  # of the tolerance: the gap is judged with grad h(Kx) as the dual, which is less good


@dataclass(frozen=True, eq=False)
class SplitPenalties(Borrowed):
    """min f(x) + g(x) + sum h_i(K_i x) with smooth h_i whose prox is known, such as a Huber norm of
    filter responses: by the primal-dual method, to which a kink is no harder than a bend.

    Gradient steps of length 1 / L see no further than the bends, which are delta wide for
    Huber(delta): sqrt(L) ~ delta^-1/2 of them are needed, here as many as for the l1 norm. T is
    that of `by`: the energy counts as smooth for its derivative, which is that of its Hessian.

    [1] Chambolle, Pock. A first-order primal-dual algorithm for convex problems. JMIV, 2011.
    """

    by: Solver = ForwardBackward()
    through: PrimalDual = PrimalDual()

    def check(self, problem: Problem) -> None:
        self.by.check(problem)
        if len(problem.dualized().h) == len(problem.h):
            need = "a smooth term with a prox @ an operator, such as Huber(0.1) @ K"
            raise refuse(self, need, names(problem.terms), "Use ForwardBackward().")

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        from ..argmin import solve  # which chooses among the solvers

        answer = solve(
            problem.dualized(),
            x0=self.primal(problem, z0),
            solver=self.through,
            tol=_INNER * limits.tol,
            max_iter=limits.max_iter,
            on_fail="ignore",
        )
        return self.assemble(problem, answer.x, ()), answer.iterations
