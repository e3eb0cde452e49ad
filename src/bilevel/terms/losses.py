"""Piecewise linear and quadratic losses: residuals and margins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, largest, like, sum_event, tiny
from .base import Dualizable, Proximable, Smooth, Weighted
from .manifolds import Coordinates, Manifold, least, shared
from .norms import _clip, _fitting, _indicator
from .smooth import _guess


@dataclass(frozen=True, eq=False)
class Absolute(Weighted, Proximable, Dualizable):
    """g(x) = sum weight |x_i - target_i|, robust to outliers; through an operator: Absolute(b) @
    Matrix(A).

    prox       x - clip(x - target, -step weight, step weight)
    conjugate  <y, target> for |y| <= weight
    at a kink the derivative returned is that of the flat part: prox = target
    """

    target: Tensor | float

    batched: ClassVar[tuple[str, ...]] = ("weight", "target")

    def density(self, x: Tensor) -> Tensor:
        return (x - self.target).abs()

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight
        return x - _clip(x - self.target, t)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # inside |y| <= weight exactly
        return _clip(y - expand(step, y) * self.target, self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(y.abs(), self.weight) + sum_event(y * self.target)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(y.abs(), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        weight = shared(self.weight, x)
        return _outside(x + dual - shared(self.target, x), -weight, weight)

    def guess(self) -> Tensor | None:
        return _guess(self.target)


@dataclass(frozen=True, eq=False)
class Quantile(Weighted, Proximable, Dualizable):
    """g(x) = sum weight max(level r_i, (level - 1) r_i), r = target - x: the pinball loss, whose
    minimiser is the quantile (Koenker, Bassett 1978).

    prox       x + clip(r, -step weight (1 - level), step weight level)
    conjugate  <y, target> for -weight level <= y <= weight (1 - level)
    """

    level: Tensor | float  # between 0 and 1; 1/2 is the median
    target: Tensor | float

    batched: ClassVar[tuple[str, ...]] = ("weight", "level", "target")

    def density(self, x: Tensor) -> Tensor:
        r = self.target - x
        return torch.maximum(self.level * r, (self.level - 1) * r)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight
        return x + _clamp(self.target - x, t * (self.level - 1), t * self.level)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # by Moreau it would lose digits
        shifted = y - expand(step, y) * self.target  # where one side of the domain is narrow
        return _clamp(shifted, -self.weight * self.level, self.weight * (1 - self.level))

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(self._excess(y), self.weight) + sum_event(y * self.target)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(self._excess(y), self.weight)

    def _excess(self, y: Tensor) -> Tensor:
        """The gauge of the conjugate's domain for weight 1: inside where it is <= weight."""
        bound = torch.where(y > 0, 1 - self.level, like(self.level, y))
        return torch.where(y == 0, 0.0, y.abs() / bound)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        weight, level = shared(self.weight, x), shared(self.level, x)
        residual = shared(self.target, x) - x - dual
        return _outside(residual, weight * (level - 1), weight * level)

    def guess(self) -> Tensor | None:
        return _guess(self.target)


@dataclass(frozen=True, eq=False)
class Hinge(Weighted, Proximable, Dualizable):
    """g(x) = sum weight max(1 - labels_i x_i, 0), labels -1 or 1: the loss of support vector
    machines, Hinge(y) @ Matrix(A) (Cortes, Vapnik 1995).

    prox       labels (m + clip(1 - m, 0, step weight)), m = labels x
    conjugate  <labels, y> for -weight <= labels y <= 0
    """

    labels: Tensor  # (B, samples): -1 or 1

    batched: ClassVar[tuple[str, ...]] = ("weight", "labels")

    def density(self, x: Tensor) -> Tensor:
        return (1 - self.labels * x).clamp(min=0)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight
        return x + self.labels * _clamp(1 - self.labels * x, 0.0, t)

    def conjugate(self, y: Tensor) -> Tensor:
        u = self.labels * y
        inside = _at_least(u, -self.weight) & _at_least(-u, 0.0, u)
        return sum_event(torch.where(inside, u, torch.inf))

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        weight = shared(self.weight, x)
        return _outside(1 - shared(self.labels, x) * (x + dual), 0 * weight, weight)

    def guess(self) -> Tensor | None:
        return _guess(self.labels)


@dataclass(frozen=True, eq=False)
class SquaredHinge(Weighted, Smooth, Proximable, Dualizable):
    """f(x) = weight/2 sum max(1 - labels_i x_i, 0)^2, labels -1 or 1.

    grad       -weight labels max(1 - m, 0), m = labels x
    prox       labels (m + s max(1 - m, 0) / (1 + s)), s = step weight
    conjugate  sum u + u^2 / (2 weight) for u = labels y <= 0
    """

    labels: Tensor  # (B, samples): -1 or 1

    batched: ClassVar[tuple[str, ...]] = ("weight", "labels")

    def density(self, x: Tensor) -> Tensor:
        return (1 - self.labels * x).clamp(min=0).square() / 2

    def grad(self, x: Tensor) -> Tensor:
        return -self.weight * self.labels * (1 - self.labels * x).clamp(min=0)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        return x + self.labels * (1 - self.labels * x).clamp(min=0) * (s / (1 + s))

    def conjugate(self, y: Tensor) -> Tensor:
        u = self.labels * y
        quotient = torch.where(u == 0, 0.0, u.square() / 2 / self.weight)
        return sum_event(torch.where(_at_least(-u, 0.0, u), u + quotient, torch.inf))

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x)

    def guess(self) -> Tensor | None:
        return _guess(self.labels)


def _outside(w: Tensor, lower: Tensor, upper: Tensor) -> Coordinates:
    """What lies between the bounds stays at the loss's kink, the rest is free."""
    slack = torch.minimum((w - lower).abs(), (w - upper).abs())
    return Coordinates((w < lower) | (w > upper), least(slack))


def _clamp(x: Tensor, lower: Tensor | float, upper: Tensor | float) -> Tensor:
    return x.clamp(*(like(v, x) for v in (lower, upper)))


def _at_least(u: Tensor, bound: Tensor | float, size: Tensor | None = None) -> Tensor:
    """u >= bound up to rounding of the bound, or of the largest of `size` in the sample."""
    if size is None:
        return u >= bound * (1 + 64 * eps(u)) - tiny(u)
    scale = size.abs().flatten(1).amax(1)
    return u >= bound - 64 * eps(u) * expand(scale, u)  # type: ignore[operator]
