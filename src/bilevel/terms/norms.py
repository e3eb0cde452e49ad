"""Norms and their relatives: sparsity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, like, smallest, sum_event, tiny
from .._tangents import differentiates
from .base import Dualizable, Proximable, Weighted
from .manifolds import Coordinates, Manifold, Radial, everything, least, shared, total


def _clip(x: Tensor, bound: Scalar) -> Tensor:
    if isinstance(bound, Tensor) and not differentiates():  # clamp by tensors is slow
        return torch.minimum(torch.maximum(x, -bound), bound)
    return x.clamp(-bound, bound)  # type: ignore[call-overload]


def _length(y: Tensor, dim: int | tuple[int, ...]) -> Tensor:
    """|y|_2 along `dim`, kept as size 1. torch's own norm has a NaN second derivative at 0; this
    has zero."""
    return y.square().sum(dim, keepdim=True).clamp_min(tiny(y)).sqrt()


def _clip_norm(y: Tensor, radius: Tensor | float, dim: int | tuple[int, ...]) -> Tensor:
    """Projection onto |y|_2 <= radius along `dim`: min(1, radius / |y|) y, and 0 for radius 0."""
    from ..kernels import fields  # compiled when first used

    fast = fields.onto_balls(y, radius, dim)
    if fast is not None:
        return fast
    length = _length(y, dim)
    radius = like(radius, y)  # number / tensor would be number * (1 / tensor): 1 up to rounding
    return y * (radius / torch.maximum(length, radius).clamp_min(tiny(y)))


def _zero(size: Tensor) -> float:
    """What is at most the _length of 0."""
    return 2 * tiny(size) ** 0.5


def _fitting(size: Tensor, weight: Tensor | float) -> Tensor:
    """(B,): the largest s <= 1 with s size <= weight everywhere."""
    ratio = torch.where(size > _zero(size), weight / size, torch.inf)
    return ratio.flatten(1).amin(1).clamp(max=1)


def _indicator(size: Tensor, weight: Tensor | float) -> Tensor:
    """(B,): 0 where size <= weight everywhere, up to rounding, else inf."""
    excess = torch.sub(size, weight, alpha=1 + 64 * eps(size))  # numbers: bools are slow
    beyond = excess.flatten(1).amax(1) > _zero(size)
    return size.new_zeros(len(size)).masked_fill(beyond, torch.inf)


def _support(w: Tensor, threshold: Tensor, curvature: Tensor | float = 0.0) -> Coordinates:
    """The coordinates above a threshold are free."""
    slack = w.abs() - threshold
    kink = threshold.expand_as(w) > 0
    free = torch.where(kink, slack > 0, True)
    return Coordinates(free, least(torch.where(kink, slack.abs(), torch.inf)), curvature)


def _lengths(w: Tensor, threshold: Tensor, dim: int | tuple[int, ...]) -> Radial:
    """The groups longer than a threshold are free."""
    length = _length(w, dim)
    slack = length - threshold
    free = slack > 0
    curvature = torch.where(free, threshold / torch.where(free, slack, 1.0), 0.0)
    none = torch.zeros_like(free)
    return Radial(free.expand_as(w), least(slack.abs()), w / length, curvature, none, total(dim))


@dataclass(frozen=True, eq=False)
class L1(Weighted, Proximable, Dualizable):
    """g(x) = sum weight |x_i|.

    prox      soft threshold: x - clip(x, -step weight, step weight)
    at a kink (|x_i| = step weight before the prox) the derivative returned is 0
    """

    def density(self, x: Tensor) -> Tensor:
        return x.abs()

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight
        return x - _clip(x, t)

    def prox_conjugate(
        self, y: Tensor, step: Scalar
    ) -> Tensor:  # step plays no part in a projection
        return _clip(y, self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(y.abs(), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(y.abs(), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        return _support(x + dual, shared(self.weight, x))


@dataclass(frozen=True, eq=False)
class L2(Weighted, Proximable, Dualizable):
    """g(x) = weight |x|_2, the Euclidean norm of the whole event (its square is LeastSquares()).

    prox      (1 - step weight / |x|)_+ x
    """

    def _dims(self, x: Tensor) -> tuple[int, ...]:
        return tuple(range(1, x.ndim))

    def density(self, x: Tensor) -> Tensor:
        return _length(x, self._dims(x))

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - _clip_norm(x, expand(step, x) * self.weight, self._dims(x))

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return _clip_norm(y, self.weight, self._dims(y))

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(self.density(y), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(self.density(y), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        return _lengths(x + dual, shared(self.weight, x), everything(x))


@dataclass(frozen=True, eq=False)
class L21(Weighted, Proximable, Dualizable):
    """g(x) = sum over groups of weight |x_group|_2, the groups being the vectors along `dim`,
    or the blocks along several dims.

    prox      x - projection of each group onto the ball of radius step weight (0 for a group inside
    it)
    """

    dim: int | tuple[int, ...] = -1  # the weight broadcasts against x with these dims of size 1

    def density(self, x: Tensor) -> Tensor:
        return _length(x, self.dim)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a group

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - _clip_norm(x, expand(step, x) * self.weight, self.dim)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return _clip_norm(y, self.weight, self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(self.density(y), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(self.density(y), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        return _lengths(x + dual, shared(self.weight, x), self.dim)


@dataclass(frozen=True, eq=False)
class ElasticNet(Weighted, Proximable, Dualizable):
    """g(x) = sum weight (ratio |x_i| + (1 - ratio) / 2 x_i^2), with 0 <= ratio <= 1 (Zou, Hastie
    2005).

    prox      soft threshold by step weight ratio, then division by 1 + step weight (1 - ratio)
    """

    ratio: Tensor | float = 0.5

    batched: ClassVar[tuple[str, ...]] = ("weight", "ratio")

    def density(self, x: Tensor) -> Tensor:
        return self.ratio * x.abs() + (1 - self.ratio) / 2 * x.square()

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        t = s * self.ratio
        return (x - _clip(x, t)) / (1 + s * (1 - self.ratio))

    def conjugate(self, y: Tensor) -> Tensor:
        excess = (y.abs() - self.weight * self.ratio).clamp(min=0)
        excess = torch.where(excess > 64 * eps(y) * y.abs(), excess, 0.0)
        curvature = self.weight * (1 - self.ratio)
        return sum_event(torch.where(excess > 0, excess.square() / (2 * curvature), 0.0))

    def dual_scale(self, y: Tensor) -> Tensor:  # without curvature it is an L1 norm
        flat = self.weight * (1 - self.ratio) == 0
        return _fitting(y.abs() * flat, self.weight * self.ratio)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return smallest(self.weight * (1 - self.ratio), x)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        weight, ratio = shared(self.weight, x), shared(self.ratio, x)
        return _support(x + dual, weight * ratio, weight * (1 - ratio))
