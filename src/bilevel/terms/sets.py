"""Constraint sets: the indicator is 0 inside and inf outside; the prox is the projection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, norm_event, sum_event
from .base import Dualizable, Proximable
from .manifolds import Coordinates, Face, Manifold, Radial, everything, least, shared, total
from .norms import _clip_norm, _length
from .threshold import project_simplex


def _indicator(inside: Tensor, x: Tensor) -> Tensor:
    return x.new_zeros(len(x)).masked_fill(~inside.flatten(1).all(1), torch.inf)


def _between(lower: Tensor | float, x: Tensor, upper: Tensor | float) -> Tensor:
    lower, upper = (torch.as_tensor(v, dtype=x.dtype, device=x.device) for v in (lower, upper))
    return torch.clamp(x, lower, upper)  # on a bound the derivative is 1


@dataclass(frozen=True, eq=False)
class Box(Proximable, Dualizable):
    """g(x) = 0 if lower <= x <= upper, else inf.

    prox       the projection
    conjugate  sum max(lower y, upper y)
    """

    lower: Tensor | float  # broadcasts against x; may be -inf
    upper: Tensor | float  # broadcasts against x; may be inf

    batched: ClassVar[tuple[str, ...]] = ("lower", "upper")

    def value(self, x: Tensor) -> Tensor:
        slack = torch.minimum(x - self.lower, self.upper - x)  # numbers: bools are slow
        return _indicator(slack.flatten(1).amin(1, keepdim=True) >= 0, x)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return _between(self.lower, x, self.upper)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # exactly 0 inside
        s = expand(step, y)
        return y - _between(s * self.lower, y, s * self.upper)

    def conjugate(self, y: Tensor) -> Tensor:
        ends = torch.maximum(self.lower * y, self.upper * y)
        return sum_event(torch.where(y == 0, 0.0, ends))

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w, lower, upper = x + dual, shared(self.lower, x), shared(self.upper, x)
        free = (w >= lower) & (w <= upper) & (lower < upper)
        slack = torch.minimum((w - lower).abs(), (w - upper).abs())
        margin = least(torch.where(lower < upper, slack, torch.inf))
        return Coordinates(free, margin)

    def guess(self) -> Tensor | None:
        if (
            isinstance(self.lower, Tensor)
            and isinstance(self.upper, Tensor)
            and self.lower.ndim >= 2
        ):
            middle = (self.lower + self.upper).detach() / 2
            return middle if middle.isfinite().all() else None
        return None


@dataclass(frozen=True, eq=False)
class NonNegative(Proximable):
    """g(x) = 0 if x >= 0, else inf. prox: max(x, 0)."""

    def value(self, x: Tensor) -> Tensor:
        return _indicator(x >= 0, x)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x.clamp(min=0)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w = x + dual
        return Coordinates(w >= 0, least(w.abs()))


@dataclass(frozen=True, eq=False)
class Simplex(Proximable, Dualizable):
    """g(x) = 0 if x >= 0 and sum x = total along `dim`, else inf.

    prox       (x - theta)_+ with theta found by sorting (Held, Wolfe, Crowder 1974); O(n log n)
    conjugate  total max y
    """

    total: Tensor | float = 1.0  # > 0, of x's rank with size 1 along dim if it is a tensor
    dim: int = -1

    batched: ClassVar[tuple[str, ...]] = ("total",)

    def value(self, x: Tensor) -> Tensor:
        error = (x.sum(self.dim, keepdim=True) - self.total).abs()
        slack = (
            8
            * eps(x)
            * x.shape[self.dim]
            * torch.as_tensor(self.total, dtype=x.dtype, device=x.device)
        )
        return _indicator((x >= 0).all(self.dim, keepdim=True) & (error <= slack), x)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a simplex

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return project_simplex(x, self.total, self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.total * y.amax(self.dim, keepdim=True))

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w = x + dual
        p = self.prox(w, 1.0)
        level = (w - p).amax(self.dim, keepdim=True)
        ones = torch.ones_like(w)
        return Face(p > 0, least((w - level).abs()), ones, ones > 0, total(self.dim))


@dataclass(frozen=True, eq=False)
class L2Ball(Proximable, Dualizable):
    """g(x) = 0 if |x - center|_2 <= radius over the whole event, else inf.

    prox       center + min(1, radius / |x - center|) (x - center)
    conjugate  <center, y> + radius |y|
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)
    center: Tensor | float = 0.0

    batched: ClassVar[tuple[str, ...]] = ("radius", "center")

    def value(self, x: Tensor) -> Tensor:
        offset = torch.linalg.vector_norm(
            x - self.center, dim=tuple(range(1, x.ndim)), keepdim=True
        )
        return _indicator(offset <= self.radius * (1 + 16 * eps(x)), x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return self.center + _clip_norm(x - self.center, self.radius, tuple(range(1, x.ndim)))

    def multiplier(self, normal: Tensor) -> Tensor:  # (B, *event) -> (B,)
        """m of a normal vector m (x - center) at a point x of the sphere; 0 where radius = 0.

        On the sphere <n - n', x - x'> = (m + m') / 2 |x - x'|^2: the normals are as those of a
        strongly convex function with the constant m.
        """
        radius = torch.as_tensor(self.radius).to(normal).flatten()
        return torch.where(radius > 0, norm_event(normal) / radius, 0.0)

    def conjugate(self, y: Tensor) -> Tensor:
        length = norm_event(y).reshape(-1, *[1] * (y.ndim - 1))
        return sum_event(self.radius * length) + sum_event(self.center * y)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        offset, radius = x + dual - shared(self.center, x), shared(self.radius, x)
        length = _length(offset, everything(x))
        tied = length > radius
        free = (~tied | (radius > 0)).expand_as(offset)
        curvature = torch.where(tied, length / torch.where(radius > 0, radius, 1.0) - 1, 0.0)
        margin, direction = least((length - radius).abs()), offset / length
        return Radial(free, margin, direction, curvature, tied, total(everything(x)))

    def guess(self) -> Tensor | None:
        return (
            self.center.detach()
            if isinstance(self.center, Tensor) and self.center.ndim >= 2
            else None
        )
