"""Non-negative least squares by Lawson and Hanson's method, a whole batch at once."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..problem import Problem
from ..terms.sets import NonNegative, Simplex
from .active_set import InteriorPoint
from .base import Z, names, refuse
from .external import Borrowed, Limits
from .saddle import Free, cholesky, solved, times

_ZERO = 1e-12  # of the largest slope at 0, or entry of x: less is rounding
_STIFF = 1e4  # times the curvature: the weight of the sum in place of a Simplex


@dataclass(frozen=True, eq=False)
class LawsonHanson(Borrowed):
    """min f(x) with f quadratic, x >= 0, or x in the simplex: for sparse solutions.

    From x = 0 the unknown of the steepest slope joins the free ones; these are solved for, and
    those that would turn negative leave again [1]. A step costs a Cholesky factor of the size of
    the support and a product with Q, a solution about as many steps as its support: with hundreds
    of unknowns of which a few are used, a small part of what InteriorPoint costs, and little
    memory. For the simplex the sum is at first a heavy row of f; T then makes it exact.

    T is that of InteriorPoint, one step of which certifies the answer, and carries its derivative.

    [1] Lawson, Hanson. Solving least squares problems, ch. 23. 1974.
    """

    by: InteriorPoint = field(default_factory=InteriorPoint)

    stride, newton = 1, True

    def check(self, problem: Problem) -> None:
        known = isinstance(problem.g, NonNegative | Simplex) and not problem.h
        if not known or problem.f is None or not problem.f.quadratic:
            need = "a quadratic f and NonNegative() or Simplex()"
            raise refuse(self, need, names(problem.terms), "Use InteriorPoint().")

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        x0, p, f, g = z0[0], self.by.program, problem.f, problem.g
        assert f is not None and p is not None
        Q, q = p.Q, f.grad(torch.zeros_like(x0)).double()
        if isinstance(g, Simplex):
            heavy = _STIFF * p.scale
            Q, q = Q + heavy[..., None], q - heavy * g.total
        x, steps = lawson_hanson(Q, q, limits)
        return self.by.assemble(problem, x.to(x0), ()), steps


def lawson_hanson(Q: Tensor, q: Tensor, limits: Limits) -> tuple[Tensor, Tensor]:
    """(argmin of 1/2 <x, Q x> + <q, x> over x >= 0, steps (B,)); Q (B or 1, n, n), q (B, n)."""
    answer, steps = torch.zeros_like(q), torch.zeros(len(q), dtype=torch.long, device=q.device)
    rows, x, free = torch.arange(len(q), device=q.device), answer, torch.zeros_like(q).bool()
    reached = torch.ones_like(rows).bool()  # whether x is the minimiser over its free unknowns
    rounding = _ZERO * q.abs().amax(1)
    for k in range(min(limits.max_iter, 3 * q.shape[1])):
        slope = times(Q, x) + q
        least, steepest = torch.where(free, torch.inf, slope).min(1)
        done = reached & (least >= -rounding)
        if bool(done.any()):
            answer[rows[done]], steps[rows[done]] = x[done], k
            rows, x, free, q, rounding, reached, steepest = (
                part[~done] for part in (rows, x, free, q, rounding, reached, steepest)
            )
            Q = Q if len(Q) == 1 else Q[~done]
        if not len(rows) or limits.out_of_time():
            break
        free[reached, steepest[reached]] = True
        x, free, reached = _onwards(Q, q, x, free)
    answer[rows] = x  # of those that did not come to an end
    return answer, steps


def _onwards(Q: Tensor, q: Tensor, x: Tensor, free: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x, free, reached) after the way from x to the minimiser over the free unknowns, as far as
    none of them turns negative; those that end it are free no longer."""
    part = Free.of(~free)
    goal = part.spread(solved(cholesky(part.block(Q)), part.rows(-q)))
    down = free & (goal <= 0)
    share = torch.where(down, x / torch.where(down, x - goal, 1.0), 1.0).amin(1, keepdim=True)
    x = x + share * (goal - x)
    free = free & ~(down & (x <= _ZERO * x.amax(1, keepdim=True)))
    return torch.where(free, x, 0.0), free, ~down.any(1)
