"""Mehrotra's predictor-corrector method for a batch of small quadratic programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from .saddle import Program, Saddle

_MOST = 60  # steps; more do not help
_TO_THE_BOUNDARY = 0.995  # part of the step that would reach it
Ends = tuple[Tensor, Tensor]  # (lower, upper), each (B, k)


@dataclass(frozen=True, eq=False)
class Side:
    """sign * v <= sign * bound for v = x, or v = C x."""

    on_rows: bool  # v = C x
    sign: float
    bound: Tensor  # (B, k), 0 where there is none
    there: Tensor  # (B, k) bool

    def take(self, index: Tensor) -> Side:
        return replace(self, bound=self.bound[index], there=self.there[index])


@dataclass(frozen=True, eq=False)
class Barrier:
    """min 1/2 <x, Q x> + <q, x> with lower <= x <= upper and low <= C x <= high."""

    program: Program
    q: Tensor  # (B, n)
    sides: tuple[Side, ...]
    fixed: Tensor  # (B, n) bool: lower = upper
    value: Tensor  # (B, n): lower there, else 0
    equation: Tensor  # (B, m) bool: low = high
    level: Tensor  # (B, m): low there, else 0

    @staticmethod
    def of(program: Program, q: Tensor, bounds: Ends, rows: Ends) -> Barrier:
        """From the gradient at 0, the ends of x and the ends of C x, all in float64."""
        sides, ties = [], []
        for on_rows, (low, high) in ((False, bounds), (True, rows)):
            tied = low == high
            ties += [tied, torch.where(tied, low, 0.0)]
            for sign, bound in ((-1.0, low), (1.0, high)):
                there = bound.isfinite() & ~tied
                if bool(there.any()):
                    sides.append(Side(on_rows, sign, torch.where(there, bound, 0.0), there))
        return Barrier(program, q, tuple(sides), *ties)

    @cached_property
    def count(self) -> Tensor:  # (B,): the inequalities
        total = torch.zeros_like(self.q[:, 0])
        return sum((side.there.sum(1) for side in self.sides), total).clamp_min(1)

    def take(self, index: Tensor) -> Barrier:
        names = ("q", "fixed", "value", "equation", "level")
        taken = {n: getattr(self, n)[index] for n in names}
        sides = tuple(side.take(index) for side in self.sides)
        return replace(self, program=self.program.take(index), sides=sides, **taken)

    def collect(self, parts: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The sums of the parts, one a side, on x and on the rows."""
        x, w = torch.zeros_like(self.q), torch.zeros_like(self.level)
        for side, part in zip(self.sides, parts, strict=True):
            x, w = (x, w + part) if side.on_rows else (x + part, w)
        return x, w

    def images(self, x: Tensor) -> list[Tensor]:
        """v for each side."""
        image = self.program.image(x) if any(side.on_rows for side in self.sides) else x
        return [image if side.on_rows else x for side in self.sides]

    def signed(self, u: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """The multipliers of x and of the rows, positive where they push down."""
        return self.collect([side.sign * part for side, part in zip(self.sides, u, strict=True)])


@dataclass(frozen=True, eq=False)
class Iterate:
    x: Tensor  # (B, n)
    y: Tensor  # (B, m): multipliers of the equations, 0 at other rows
    s: tuple[Tensor, ...]  # slacks, (B, k) for each side, > 0
    u: tuple[Tensor, ...]  # multipliers, > 0

    def take(self, index: Tensor) -> Iterate:
        s, u = (tuple(p[index] for p in parts) for parts in (self.s, self.u))
        return Iterate(self.x[index], self.y[index], s, u)

    def moved(self, step: Iterate, t: Tensor) -> Iterate:
        s = tuple(p + t * d for p, d in zip(self.s, step.s, strict=True))
        u = tuple(p + t * d for p, d in zip(self.u, step.u, strict=True))
        return Iterate(self.x + t * step.x, self.y + t * step.y, s, u)


@dataclass(frozen=True, eq=False)
class Residuals:
    stationary: Tensor  # (B, n)
    equation: Tensor  # (B, m)
    slack: tuple[Tensor, ...]  # s + sign (v - bound)
    force: Tensor  # (B,): the size of the gradient's parts

    def take(self, index: Tensor) -> Residuals:
        slack = tuple(part[index] for part in self.slack)
        return Residuals(self.stationary[index], self.equation[index], slack, self.force[index])


def interior_point(
    b: Barrier, tol: float, max_iter: int, out_of_time: Callable[[], bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x, multipliers of x, multipliers of C x, steps): a finished sample leaves the batch.

    [1] Mehrotra. On the implementation of a primal-dual interior point method. SIOPT, 1992.
    """
    at = _start(b)
    residuals = _residuals(b, at)
    scales = [1e-3 * scale for scale in _scales(at, residuals)]  # where the solution is 0
    x, u, w = torch.empty_like(b.q), torch.empty_like(b.q), torch.empty_like(b.level)
    steps = torch.zeros(len(x), dtype=torch.long, device=x.device)
    rows = torch.arange(len(x), device=x.device)
    for k in range(1 + min(max_iter, _MOST)):
        violation = _violation(b, at, residuals, [scale[rows] for scale in scales])
        done = (violation <= tol) | violation.isnan()
        if k == min(max_iter, _MOST) or out_of_time():
            done = torch.ones_like(done)
        if bool(done.any()):
            leaving = rows[done]
            on_x, on_rows = b.signed(at.u)
            x[leaving], u[leaving], w[leaving] = at.x[done], on_x[done], (on_rows + at.y)[done]
            steps[leaving] = k
            keep = (~done).nonzero()[:, 0]
            b, at, residuals, rows = b.take(keep), at.take(keep), residuals.take(keep), rows[keep]
        if not len(rows):
            break
        at = _advance(b, at, residuals)
        residuals = _residuals(b, at)
    return x, u, w, steps


def _start(b: Barrier) -> Iterate:
    """The minimiser with every inequality replaced by a spring, moved inside."""
    p = b.program
    springs = [side.there * (p.row_scale if side.on_rows else p.scale) for side in b.sides]
    images = b.images(b.value)
    push = [k * (v - side.bound) for k, v, side in zip(springs, images, b.sides, strict=True)]
    slope, broken = p.product(b.value) + b.q, p.image(b.value) - b.level
    dx, dw = _apply(b, _system(b, springs), springs, push, slope, broken)
    x, y = b.value + dx, torch.where(b.equation, dw, 0.0)
    if not b.sides:
        return Iterate(x, y, (), ())
    s = [
        torch.where(side.there, side.sign * (side.bound - v), 0.0)
        for side, v in zip(b.sides, b.images(x), strict=True)
    ]
    return Iterate(x, y, *_inside(b, s, [-k * part for k, part in zip(springs, s, strict=True)]))


def _inside(b: Barrier, *both: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Slacks and multipliers shifted until all are positive, of similar products."""
    there = torch.cat([side.there for side in b.sides], 1)
    positive = []
    for parts in both:
        whole = torch.cat(parts, 1)
        least = torch.where(there, whole, torch.inf).amin(1, keepdim=True)
        size = whole.abs().amax(1, keepdim=True).clamp_min(1e-8)
        positive.append(torch.where(there, whole + (-1.5 * least).clamp_min(0) + 1e-3 * size, 0.0))
    s, u = positive
    product = (s * u).sum(1, keepdim=True)
    shift_s, shift_u = (0.5 * product / part.sum(1, keepdim=True) for part in (u, s))
    s, u = torch.where(there, s + shift_s, 1.0), torch.where(there, u + shift_u, 0.0)
    sizes = [side.bound.shape[1] for side in b.sides]
    return [s.split(sizes, 1), u.split(sizes, 1)]


def _residuals(b: Barrier, at: Iterate) -> Residuals:
    p, image, product = b.program, b.program.image(at.x), b.program.product(at.x)
    on_x, on_rows = b.signed(at.u)
    slope = product + b.q + on_x + p.pull(on_rows + at.y)
    force = torch.maximum(b.q.abs(), product.abs()).amax(1)
    slack = tuple(
        torch.where(side.there, s + side.sign * ((image if side.on_rows else at.x) - side.bound), 0)
        for side, s in zip(b.sides, at.s, strict=True)
    )
    broken = torch.where(b.equation, image - b.level, 0.0)
    return Residuals(torch.where(b.fixed, 0.0, slope), broken, slack, force)


def _scales(at: Iterate, r: Residuals) -> list[Tensor]:  # -> (B,) each
    """The sizes of the gradient and of x with its slacks."""
    return [r.force, torch.stack([at.x.abs().amax(1)] + [s.amax(1) for s in at.s]).amax(0)]


def _violation(b: Barrier, at: Iterate, r: Residuals, least: list[Tensor]) -> Tensor:  # -> (B,)
    """The largest relative violation of the optimality conditions."""
    sizes = zip(_scales(at, r), least, strict=True)
    force, size = (torch.maximum(now, floor).clamp_min(1e-300) for now, floor in sizes)
    broken = torch.cat([r.equation, *r.slack, 0 * b.q[:, :1]], 1).abs().amax(1) / size
    mu = _complementarity(b, at)[:, 0] / force / size
    return torch.stack([r.stationary.abs().amax(1) / force, broken, mu]).amax(0)


def _complementarity(b: Barrier, at: Iterate) -> Tensor:  # -> (B, 1): mean of s u
    products = ((s * u).sum(1) for s, u in zip(at.s, at.u, strict=True))
    return (sum(products, torch.zeros_like(b.q[:, 0])) / b.count)[:, None]


def _advance(b: Barrier, at: Iterate, r: Residuals) -> Iterate:
    """A predictor and a corrector, by one factorisation."""
    stiff = [u / s for u, s in zip(at.u, at.s, strict=True)]
    system = _system(b, stiff)

    def direction(wanted: list[Tensor]) -> Iterate:
        """Towards products s u that are lower by `wanted`."""
        loose = [
            d * rs - p / s for d, rs, p, s in zip(stiff, r.slack, wanted, at.s, strict=True)
        ]  # u' - u where v stays
        push = [side.sign * part for side, part in zip(b.sides, loose, strict=True)]
        dx, dy = _apply(b, system, stiff, push, r.stationary, r.equation)
        du, ds = [], []
        for side, v, d, part, rs in zip(b.sides, b.images(dx), stiff, loose, r.slack, strict=True):
            du.append(part + side.sign * d * v)
            ds.append(torch.where(side.there, -rs - side.sign * v, 0.0))
        return Iterate(dx, torch.where(b.equation, dy, 0.0), tuple(ds), tuple(du))

    mu, products = _complementarity(b, at), [s * u for s, u in zip(at.s, at.u, strict=True)]
    first = direction(products)
    ahead = at.moved(first, _longest(at, first))
    centre = (_complementarity(b, ahead) / mu.clamp_min(1e-300)).clamp(0, 1) ** 3 * mu
    second = direction(
        [
            torch.where(side.there, p + ds * du - centre, 0.0)
            for side, p, ds, du in zip(b.sides, products, first.s, first.u, strict=True)
        ]
    )
    return at.moved(second, (_TO_THE_BOUNDARY * _longest(at, second)).clamp(max=1))


def _system(b: Barrier, stiff: list[Tensor]) -> Saddle:
    """Q + diag(stiffness of the bounds), and the rows with theirs."""
    on_x, on_rows = b.collect(stiff)
    E = torch.where(on_rows > 0, 1 / torch.where(on_rows > 0, on_rows, 1.0), 0.0)
    bounded = any(not side.on_rows for side in b.sides)
    return Saddle(b.program, b.fixed, b.equation | (on_rows > 0), on_x if bounded else None, E)


def _apply(b: Barrier, system: Saddle, stiff, push, slope: Tensor, broken: Tensor):
    """(dx, dw) with Q dx + C* dw + push + stiff dv = -slope, C dx = -broken at the equations."""
    (_, on_rows), (push_x, push_w) = b.collect(stiff), b.collect(push)
    give = torch.where(on_rows > 0, push_w / torch.where(on_rows > 0, on_rows, 1.0), 0.0)
    return system(-slope - push_x, -torch.where(b.equation, broken, give))


def _longest(at: Iterate, step: Iterate) -> Tensor:  # -> (B, 1): to the boundary, 1 / 0.995 at most
    end = torch.full_like(at.x[:, :1], 1 / _TO_THE_BOUNDARY)
    values = torch.cat([end, *at.s, *at.u], 1)
    changes = torch.cat([-torch.ones_like(end), *step.s, *step.u], 1)
    return torch.where(changes < 0, -values / changes, torch.inf).amin(1, keepdim=True)
