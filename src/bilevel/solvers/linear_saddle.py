"""Primal-dual interior points for a batch of linear saddle points on boxes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from .saddle import cholesky, times

_MOST = 60  # steps; more do not help
_TO_THE_BOUNDARY = 0.995  # part of the step that would reach it


@dataclass(frozen=True, eq=False)
class Boxes:
    """min over lower < x < upper, max over |y| < weight, of <K x, y>."""

    K: Tensor  # (B or 1, m, n)
    lower: Tensor  # (B, n)
    upper: Tensor
    weight: Tensor  # (B, m)

    def take(self, index: Tensor) -> Boxes:
        K = self.K[index] if len(self.K) > 1 else self.K
        return Boxes(K, self.lower[index], self.upper[index], self.weight[index])

    def image(self, x: Tensor) -> Tensor:  # K x
        return times(self.K, x)

    def pull(self, y: Tensor) -> Tensor:  # K* y
        return times(self.K.mT, y)

    def value(self, x: Tensor) -> Tensor:  # -> (B,)
        return (self.weight * self.image(x).abs()).sum(1)

    def gap(self, at: Point) -> Tensor:  # -> (B,)
        """value(x) - min over the box of <K* y, x>."""
        slope = self.pull(at.y)
        return self.value(at.x) - torch.minimum(self.lower * slope, self.upper * slope).sum(1)

    def slacks(self, at: Point) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return at.x - self.lower, self.upper - at.x, self.weight - at.y, self.weight + at.y


@dataclass(frozen=True, eq=False)
class Point:
    """x, y, and the multipliers of their bounds: K x = c - d, K* y = a - b throughout."""

    x: Tensor  # (B, n)
    y: Tensor  # (B, m)
    a: Tensor  # of x >= lower
    b: Tensor  # of x <= upper
    c: Tensor  # of y <= weight
    d: Tensor  # of y >= -weight

    def _map(self, function: Callable[..., Tensor], *others: Point) -> Self:
        parts = ([getattr(point, f.name) for point in (self, *others)] for f in fields(self))
        return type(self)(*(function(*part) for part in parts))

    def take(self, index: Tensor) -> Self:
        return self._map(lambda part: part[index])

    def moved(self, step: Point, t: Tensor) -> Self:  # t: (B, 1)
        return self._map(lambda part, change: part + t * change, step)

    @property
    def multipliers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.a, self.b, self.c, self.d


Products = tuple[Tensor, Tensor, Tensor, Tensor]


def solve(
    p: Boxes, tol: float, max_iter: int, out_of_time: Callable[[], bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """(x, y, steps): a sample of relative gap <= tol leaves the batch, as does one whose gap three
    steps have not lessened, with the best that it had.

    Strictly feasible from the start to the end, primal and dual. A step is the Cholesky factor of
    an n x n matrix.

    [1] Mehrotra. On the implementation of a primal-dual interior point method. SIOPT, 1992.
    """
    at = _start(p)
    x, y, first = at.x.clone(), at.y.clone(), p.value(at.x)
    rows = torch.arange(len(x), device=x.device)
    steps, least = torch.zeros_like(rows), torch.full_like(first, torch.inf)
    for k in range(1 + min(max_iter, _MOST)):
        gap = p.gap(at)
        better = gap < least[rows]
        least[rows], steps[rows] = (
            torch.minimum(gap, least[rows]),
            torch.where(better, k, steps[rows]),
        )
        x[rows[better]], y[rows[better]] = at.x[better], at.y[better]
        size = torch.maximum(p.value(at.x), 1e-6 * first[rows])  # the least energy may be 0
        going = (gap > tol * size) & (k - steps[rows] < 3)
        if k == min(max_iter, _MOST) or out_of_time() or not bool(going.any()):
            break
        if not bool(going.all()):
            keep = going.nonzero()[:, 0]
            p, at, rows = p.take(keep), at.take(keep), rows[keep]
        at = _advance(p, at)
    return x, y, steps


def _start(p: Boxes) -> Point:
    x = (p.lower + p.upper) / 2
    half = (p.upper - p.lower) / 2
    image = p.image(x)
    more = times(p.K.abs(), half).mean(1, keepdim=True).clamp_min(1e-300) / 10
    c, d = image.clamp_min(0) + more, (-image).clamp_min(0) + more
    a = (more * p.weight.mean(1, keepdim=True) / half.mean(1, keepdim=True)).expand_as(x)
    return Point(x, torch.zeros_like(c), a, a, c, d)


def _products(p: Boxes, at: Point) -> Products:
    return tuple(s * m for s, m in zip(p.slacks(at), at.multipliers, strict=True))  # type: ignore[return-value]


def _advance(p: Boxes, at: Point) -> Point:
    """Mehrotra's predictor and corrector, with one factor."""
    newton = _Newton(p, at)
    products = _products(p, at)
    count = sum(part.shape[1] for part in products)
    mu = sum(part.sum(1, keepdim=True) for part in products) / count
    still = tuple(torch.zeros_like(part) for part in products)
    guess = newton.step(still)  # type: ignore[arg-type]
    ahead = _products(p, at.moved(guess, _longest(p, at, guess)))
    reached = sum(part.sum(1, keepdim=True) for part in ahead) / count
    target = mu * (reached / mu) ** 3
    moves = (guess.x, -guess.x, -guess.y, guess.y)
    bent = zip(moves, guess.multipliers, strict=True)
    step = newton.step(tuple(target - move * change for move, change in bent))  # type: ignore[arg-type]
    return at.moved(step, (_TO_THE_BOUNDARY * _longest(p, at, step)).clamp(max=1.0))


def _longest(p: Boxes, at: Point, step: Point) -> Tensor:  # -> (B, 1)
    """The longest step, at most 1 / _TO_THE_BOUNDARY, that keeps slacks and multipliers >= 0."""
    moves = (step.x, -step.x, -step.y, step.y, *step.multipliers)
    falls = torch.cat(
        [-d / v for d, v in zip(moves, (*p.slacks(at), *at.multipliers), strict=True)], 1
    )
    return 1 / falls.amax(1, keepdim=True).clamp_min(_TO_THE_BOUNDARY)


class _Newton:
    """Steps towards products = target, K x = c - d and K* y = a - b kept, from one factor of
    (a/s + b/t) + K* (c/u + d/v)^-1 K, with s, t, u, v the slacks."""

    def __init__(self, p: Boxes, at: Point) -> None:
        self.p, self.at, self.slacks = p, at, p.slacks(at)
        s, t, u, v = self.slacks
        self.on_x, self.on_y = at.a / s + at.b / t, at.c / u + at.d / v
        H = p.K.mT @ (p.K / self.on_y[..., None])
        H.diagonal(dim1=1, dim2=2).add_(self.on_x)
        self.scale = H.diagonal(dim1=1, dim2=2).rsqrt()
        self.factor = cholesky(H.mul_(self.scale[..., None]).mul_(self.scale[:, None]))
        # rounding in the equations is taken back by each step
        self.off_y = p.image(at.x) - at.c + at.d
        self.off_x = p.pull(at.y) - at.a + at.b

    def step(self, target: Products) -> Point:
        p, at, (s, t, u, v) = self.p, self.at, self.slacks
        to_a, to_b, to_c, to_d = (
            goal / slack - multiplier
            for goal, slack, multiplier in zip(target, self.slacks, at.multipliers, strict=True)
        )
        on_rows = self.off_y - (to_c - to_d)
        right = to_a - to_b - self.off_x - p.pull(on_rows / self.on_y)
        scaled = (self.scale * right)[..., None]
        x = self.scale * torch.cholesky_solve(scaled, self.factor)[..., 0]
        y = (p.image(x) + on_rows) / self.on_y
        return Point(
            x, y, to_a - at.a / s * x, to_b + at.b / t * x, to_c + at.c / u * y, to_d - at.d / v * y
        )
