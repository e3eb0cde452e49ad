"""Balls of norms: the indicator is 0 inside and inf outside; the prox is the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, sum_event, tiny
from .base import Dualizable, Proximable
from .manifolds import Coordinates, Face, Manifold, everything, least, shared, total
from .norms import _clip, _indicator, _length
from .threshold import flat, project_l1


@dataclass(frozen=True, eq=False)
class L1Ball(Proximable, Dualizable):
    """g(x) = 0 if sum |x_i - center_i| <= radius over the whole event, else inf.

    prox       center + sign(d) (|d| - level)_+ for d = x - center outside; the level by sorting,
               O(n log n)
    conjugate  <center, y> + radius max |y_i|
    at a kink (an entry that just vanishes) the derivative returned is one of the two sides'
    Duchi, Shalev-Shwartz, Singer, Chandra. Efficient projections onto the l1-ball. ICML, 2008.
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)
    center: Tensor | float = 0.0

    batched: ClassVar[tuple[str, ...]] = ("radius", "center")

    def value(self, x: Tensor) -> Tensor:
        size = flat((x - self.center).abs()).sum(-1, keepdim=True)
        return _indicator(size - _centering(x, self.center), self.radius)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return self.center + project_l1(flat(x - self.center), self.radius, -1).reshape(x.shape)

    def conjugate(self, y: Tensor) -> Tensor:
        largest = flat(y.abs()).amax(-1, keepdim=True)
        return sum_event(self.radius * largest) + sum_event(self.center * y)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        offset, radius = x + dual - shared(self.center, x), shared(self.radius, x)
        size, dims = offset.abs(), everything(x)
        excess = size.sum(dims, keepdim=True) - radius
        tied = excess > 0
        p = project_l1(flat(offset), radius, -1).reshape(x.shape)
        level = (size - p.abs()).amax(dims, keepdim=True)
        slack = torch.where(tied, torch.minimum((size - level).abs(), excess), -excess)
        margin = least(torch.where(radius > 0, slack, torch.inf))
        return Face(~tied | (p != 0), margin, p.sign(), tied, total(dims))

    def guess(self) -> Tensor | None:
        return _center(self)


@dataclass(frozen=True, eq=False)
class LinfBall(Proximable, Dualizable):
    """g(x) = 0 if max |x_i - center_i| <= radius, else inf. (Other bounds in each entry: Box.)

    prox       center + clip(x - center, -radius, radius)
    conjugate  <center, y> + radius sum |y_i|
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)
    center: Tensor | float = 0.0

    batched: ClassVar[tuple[str, ...]] = ("radius", "center")

    def value(self, x: Tensor) -> Tensor:
        return _indicator((x - self.center).abs() - _centering(x, self.center), self.radius)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return self.center + _clip(x - self.center, self.radius)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        slack = shared(self.radius, x) - (x + dual - shared(self.center, x)).abs()
        return Coordinates(slack >= 0, least(slack.abs()))

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.radius * y.abs()) + sum_event(self.center * y)

    def guess(self) -> Tensor | None:
        return _center(self)


def _centering(x: Tensor, center: Tensor | float) -> Tensor | float:
    """What x - center may be off by, for an x that was center + d."""
    if not isinstance(center, Tensor) and center == 0:
        return 0.0
    return 4 * eps(x) * flat(x.abs()).sum(-1, keepdim=True)


def _center(ball: L1Ball | LinfBall) -> Tensor | None:
    known = isinstance(ball.center, Tensor) and ball.center.ndim >= 2
    return ball.center.detach() if known else None  # type: ignore[union-attr]


@dataclass(frozen=True, eq=False)
class L21Ball(Proximable, Dualizable):
    """g(x) = 0 if the lengths |x_group|_2 of the vectors along `dim` sum to at most radius, else
    inf.

    prox       each group scaled to its length's part of the projection of the lengths onto the l1
               ball
    conjugate  radius max |y_group|_2
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)
    dim: int = -1

    batched: ClassVar[tuple[str, ...]] = ("radius",)
    per_sample: ClassVar[tuple[str, ...]] = ("radius",)

    def value(self, x: Tensor) -> Tensor:
        return _indicator(flat(_length(x, self.dim)).sum(-1, keepdim=True), self.radius)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        length = _length(x, self.dim)
        kept = project_l1(flat(length), self.radius, -1).reshape(length.shape)
        some = kept > 0
        return x * torch.where(some, kept / torch.where(some, length, 1.0), 0.0)

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.radius * flat(_length(y, self.dim)).amax(-1, keepdim=True))


@dataclass(frozen=True, eq=False)
class L1InfBall(Proximable, Dualizable):
    """g(x) = 0 if the maxima max |x_group| of the vectors along `dim` sum to at most radius, else
    inf.

    prox       clip(x, -m, m) with one m a group: every group loses the same amount above its m, or
               all of it where it has less. The amount is found by Newton's method on a convex
               piecewise linear function, which ends after finitely many steps, about ten
    cost       O(n log n), a sort
    conjugate  radius max over groups of sum |y_group|
    Quattoni, Carreras, Collins, Darrell. An efficient projection for l1,inf regularization. ICML,
    2009.
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)
    dim: int = -1

    batched: ClassVar[tuple[str, ...]] = ("radius",)
    per_sample: ClassVar[tuple[str, ...]] = ("radius",)

    def value(self, x: Tensor) -> Tensor:
        return _indicator(flat(x.abs().amax(self.dim, keepdim=True)).sum(-1, True), self.radius)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        size = x.abs()
        inside = flat(size.amax(self.dim, keepdim=True)).sum(-1, keepdim=True) <= self.radius
        level = self._levels(size)
        return torch.where(inside, x, x.clamp(-level, level))

    def _levels(self, size: Tensor) -> Tensor:  # one a group, for an x outside
        ordered = size.movedim(self.dim, -1).sort(dim=-1, descending=True).values
        number = torch.arange(1, ordered.shape[-1] + 1, dtype=size.dtype, device=size.device)
        mass = ordered.cumsum(-1)  # of the largest entries
        above = (mass - number * ordered).detach()  # and what of it lies above the next of them
        dims = tuple(range(1, ordered.ndim))

        def lost(amount: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            """A Newton step for the amount, from below: (amount, largest masses, their numbers)."""
            k = (above <= amount).sum(-1, keepdim=True).clamp(min=1)
            top, alive = mass.gather(-1, k - 1), (mass[..., -1:] > amount)
            slope = (alive.to(size) / k).sum(dims, keepdim=True)
            excess = torch.where(alive, top / k, 0.0).sum(dims, keepdim=True) - self.radius
            return excess / slope.clamp(min=1 / ordered.shape[-1]), top, k

        with torch.no_grad():
            amount, following = mass.new_zeros(()), lost(mass.new_zeros(()))[0]
            while bool((following > amount * (1 + 4 * eps(size)) + tiny(size)).any()):
                amount, following = torch.maximum(following, amount), lost(following)[0]
        amount, top, k = lost(amount)
        level = ((top - amount) / k).clamp(min=0)
        total = level.sum(dims, keepdim=True)  # the radius, but for rounding
        exact = torch.where(total > 0, self.radius / total.clamp(min=tiny(size)), 1.0).detach()
        return (level * exact).movedim(-1, self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.radius * flat(y.abs().sum(self.dim, keepdim=True)).amax(-1, True))


@dataclass(frozen=True, eq=False)
class L0Ball(Proximable):
    """g(x) = 0 if at most `count` entries of x are not 0, else inf: k-sparse. Not convex.

    prox  a nearest point: the `count` largest magnitudes are kept (of ties, any), the others are 0
    Nothing in the theory of convergence or of gaps holds; a solve ends, at best, in a point that is
    optimal on its support. With `dim`, groups are counted: the vectors along it, by their lengths.
    Blumensath, Davies. Iterative hard thresholding for compressed sensing. ACHA, 2009.
    """

    count: int  # >= 0
    dim: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 0:
            raise ValueError(f"L0Ball.count must be an integer >= 0, got {self.count!r}.")

    def _sizes(self, x: Tensor) -> Tensor:  # squares would underflow
        if self.dim is None:
            return x.abs()
        return torch.linalg.vector_norm(x, dim=self.dim, keepdim=True)

    def value(self, x: Tensor) -> Tensor:
        number = (self._sizes(x) != 0).flatten(1).sum(1)
        return x.new_zeros(len(x)).masked_fill(number > self.count, torch.inf)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        size = self._sizes(x.detach())
        rows = size.flatten(1)
        kept = rows.topk(min(self.count, rows.shape[1]), dim=1).indices
        mask = torch.zeros_like(rows, dtype=torch.bool).scatter(1, kept, True)
        return torch.where(mask.reshape(size.shape), x, 0.0)
