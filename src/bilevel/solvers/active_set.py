"""Quadratic programs: an interior point finds the solution, an active-set step is T."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from .._broadcast import eps
from ..acceleration import Acceleration, Plain
from ..acceleration.base import where
from ..problem import Problem
from .base import Z, names, refuse
from .external import External, Limits
from .interior_point import Barrier, Ends, interior_point
from .quadratic_program import Constraint, constraints, is_quadratic_program, program
from .saddle import Program, times

_HANDOVER = 1e-6  # the violation at which steps of T take over


@dataclass(frozen=True, eq=False)
class InteriorPoint(External):
    """min f(x) with f quadratic, x in polyhedra: Box, NonNegative, Simplex, HalfSpace, Hyperplane,
    HyperplaneBox, Affine, or such of K x.

    Written lower <= x <= upper, low <= C x <= high with z = (x, u, w), u and w the multipliers of
    the two. `solve` is Mehrotra's predictor-corrector method, batched, in float64: about ten
    Cholesky factorisations of n x n. T takes as active what u + c (x - bound) and w + d (C x -
    bound) point beyond, and solves the equations that are left: z = T(z) exactly at the optimality
    conditions, and dT/dz = 0 there, so that one step carries the whole derivative.

    Needs f positive definite along the active constraints; n up to a few hundred.

    [1] Mehrotra. On the implementation of a primal-dual interior point method. SIOPT, 1992.
    [2] Hintermueller, Ito, Kunisch. The primal-dual active set strategy as a semismooth Newton
    method. SIOPT, 2003.
    """

    program: Program | None = None  # set by prepare

    stride, newton = 1, True

    def check(self, problem: Problem) -> None:
        if not is_quadratic_program(problem):
            raise refuse(
                self,
                "a quadratic f and sets of linear inequalities (Box, NonNegative, Simplex, also of "
                "K x)",
                names(problem.terms),
                "Use ForwardBackward(), or PrimalDual() with composed terms.",
            )

    def prepare(self, problem: Problem, x0: Tensor) -> InteriorPoint:
        if x0.ndim != 2:
            raise ValueError(
                f"InteriorPoint needs x of shape (B, n), got {tuple(x0.shape)}. Use "
                "ForwardBackward(), or PrimalDual() with composed terms, which take any shape."
            )
        return replace(self, program=program(problem, x0))

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x0, _, w), p, f = z0, self._program, problem.f
        assert f is not None
        bounds, others = constraints(problem, x0)
        rows = _rows_ends(others, w.double())
        q = f.grad(torch.zeros_like(x0)).double()
        b = Barrier.of(p, q, bounds.ends(x0.double()), rows)
        x, u, w, steps = interior_point(b, _HANDOVER, limits.max_iter, limits.out_of_time)
        slope = p.product(x) + q + p.pull(w)
        state = tuple(part.to(x0) for part in (x, torch.where(b.fixed, -slope, u), w))
        sound = reduce(torch.logical_and, [part.isfinite().all(1) for part in state])
        return where(sound, state, z0), steps  # broken where no point meets all constraints

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return x0, torch.zeros_like(x0), x0.new_zeros(len(x0), self._program.C.shape[1])

    @property
    def _program(self) -> Program:
        assert self.program is not None, "not prepared"
        return self.program

    def step(self, problem: Problem, z: Z) -> Z:
        (x, u, w), p, f = z, self._program, problem.f
        assert f is not None
        a = _Active(problem, p, z)
        slope = f.grad(x) + a.pull(w)
        dx, dw = a.to_bounds, torch.where(a.tied, 0.0, -w)  # the part that is known
        rest = -slope - p.product(dx) - p.pull(dw)  # u becomes 0 at the free coordinates
        more, turn = p.saddle(a.fixed, a.tied)(rest, a.to_levels - p.image(dx))
        dx, dw = dx + more, dw + turn
        # 0, but where the tied rows contradict each other or the fixed coordinates
        dw = dw + torch.where(a.tied, p.row_scale.to(w) * (p.image(dx) - a.to_levels), 0.0)
        u = torch.where(a.fixed, -(slope + p.product(dx) + p.pull(dw)), 0.0)
        return x + dx, u, w + dw

    def dual(self, problem: Problem, z: Z) -> Z:
        x, _, w = z
        _, others = constraints(problem, x)
        sizes = [c.image(x).shape[1] for c in others]
        duals: list[Tensor | None] = [None] * len(problem.h)
        for c, part in zip(others, w.split(sizes, 1), strict=True):
            if c.owner:
                y, before = c.dual(part), duals[c.owner - 1]
                duals[c.owner - 1] = y if before is None else before + y
        return tuple(duals)  # type: ignore[return-value]

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        """The multipliers, without a graph, by least squares on the bounds that x lies at."""
        assert problem.f is not None
        with torch.no_grad():
            p, slope = self._program, problem.f.grad(x)
            bounds, others = constraints(problem, x)
            images = [c.image(x) for c in others]
            image = torch.cat([x[:, :0], *images], 1)
            fixed = _at_an_end(x, bounds.ends(x))
            tied = _at_an_end(image, _rows_ends(others, image))
            C = tied[:, :, None] * p.C.to(x)
            free = torch.where(fixed[:, None, :], 0.0, C)
            w = -times(torch.linalg.pinv(free.mT, rtol=1e3 * eps(x)), slope)
            u = torch.where(fixed, -(slope + times(C.mT, w)), 0.0)
        return x, u, w

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()

    def take(self, index: Tensor) -> InteriorPoint:
        return replace(self, program=self._program.take(index))


class _Active:
    """The inequalities that z = (x, u, w) takes as active, and the way to their bounds."""

    def __init__(self, problem: Problem, p: Program, z: Z) -> None:
        x, u, w = z
        bounds, self.others = constraints(problem, x)
        images = [c.image(x) for c in self.others]
        self.sizes, image = [part.shape[1] for part in images], torch.cat([x[:, :0], *images], 1)
        self.fixed, self.to_bounds = _beyond(x, u, bounds.ends(x), p.scale)
        self.tied, self.to_levels = _beyond(image, w, _rows_ends(self.others, image), p.row_scale)

    def pull(self, w: Tensor) -> Tensor:  # C* w
        parts = zip(self.others, w.split(self.sizes, 1), strict=True)
        return sum((c.pull(part) for c, part in parts), w.new_zeros(()))  # type: ignore[return-value]


def _beyond(v: Tensor, u: Tensor, ends: Ends, scale: Tensor) -> tuple[Tensor, Tensor]:
    """(where v + u / scale points beyond an end, or the ends are one; the way from v to it)."""
    (lower, upper), ahead = ends, v.detach() + u.detach() / scale.to(v)
    below = (ahead < lower) | (lower == upper)
    above = (ahead > upper) & ~below
    way = torch.where(below, lower - v, torch.where(above, upper - v, 0.0))
    return below | above, way


def _at_an_end(v: Tensor, ends: Ends) -> Tensor:  # -> bool
    """To half the digits."""
    near = eps(v) ** 0.5 * v.abs().amax(1, keepdim=True) if v.shape[1] else 0.0
    return ((v - ends[0]).abs() <= near) | ((v - ends[1]).abs() <= near)


def _rows_ends(others: list[Constraint], like: Tensor) -> Ends:
    """(low, high) of all rows, (B, m)."""
    pairs = [c.ends(like) for c in others]
    low, high = (torch.cat([like[:, :0], *(pair[i] for pair in pairs)], 1) for i in (0, 1))
    return low, high
