"""Smooth data terms and energies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .._broadcast import Scalar, expand, inner, largest, smallest, sum_event
from .base import Dualizable, Proximable, Smooth, Weighted
from .manifolds import Coordinates, Manifold, least, shared
from .norms import _fitting


def _square(x: Tensor) -> Tensor:
    """|x|^2, smooth at 0 for complex numbers, too."""
    return (x * x.conj()).real if x.is_complex() else x.square()


def _guess(target: Tensor | float) -> Tensor | None:
    return target.detach() if isinstance(target, Tensor) and target.ndim >= 2 else None


@dataclass(frozen=True, eq=False)
class LeastSquares(Weighted, Smooth, Proximable, Dualizable):
    """f(x) = weight/2 |x - target|^2; through an operator: LeastSquares(b) @ Matrix(A). With target
    0: weight/2 |x|^2. The data of a complex operator may be complex: LeastSquares(b) @ FFT().

    prox       (x + step weight target) / (1 + step weight)
    conjugate  <y, target> + |y|^2 / (2 weight)
    """

    target: Tensor | float = 0.0  # (B, *event), or broadcasts against x

    batched: ClassVar[tuple[str, ...]] = ("weight", "target")

    def density(self, x: Tensor) -> Tensor:
        return _square(x - self.target) / 2

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * (x - self.target)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        residual = x - self.target
        slope = self.weight * residual
        return inner(slope, residual) / 2, slope

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        return (x + s * self.target) / (1 + s)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        s = expand(step, y)
        return (y - s * self.target) * (self.weight / (self.weight + s))

    def conjugate(self, y: Tensor) -> Tensor:
        square = _square(y) / 2
        if not isinstance(self.weight, Tensor):
            quotient = square / self.weight
        else:  # where the weight is 0, f is 0 and y must be 0
            quotient = torch.where(square > 0, square / self.weight, 0.0)
        target = self.target.conj() if isinstance(self.target, Tensor) else self.target
        return sum_event(quotient + (y * target).real)

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return smallest(self.weight, x)

    @property
    def quadratic(self) -> bool:
        return True

    def guess(self) -> Tensor | None:
        return _guess(self.target)


@dataclass(frozen=True, eq=False)
class Huber(Weighted, Smooth, Proximable, Dualizable):
    """f(x) = weight sum r^2/(2 delta) where |r| <= delta, |r| - delta/2 beyond, with r = x -
    target.

    grad       r / max(|r|, delta), clipped to [-1, 1]
    prox       target + r - s clip(r / (delta + s), -1, 1) with s = step weight
    conjugate  <y, target> + delta |y|^2 / (2 weight) for |y| <= weight
    """

    delta: Tensor | float  # > 0: where the quadratic turns linear
    target: Tensor | float = 0.0

    batched: ClassVar[tuple[str, ...]] = ("weight", "delta", "target")

    def density(self, x: Tensor) -> Tensor:
        size = (x - self.target).abs()
        return torch.where(
            size <= self.delta, size.square() / (2 * self.delta), size - self.delta / 2
        )

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * ((x - self.target) / self.delta).clamp(-1, 1)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        r = x - self.target
        return x - s * (r / (self.delta + s)).clamp(-1, 1)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # inside |y| <= weight exactly
        s, w = expand(step, y), self.weight
        return w * ((y - s * self.target) / (w + s * self.delta)).clamp(-1, 1)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        """Everywhere; the curvature jumps from weight / delta to 0 at |r| = delta."""
        weight, delta, target = (shared(v, x) for v in (self.weight, self.delta, self.target))
        slack = (x + dual - target).abs() - (delta + weight)
        curvature = torch.where(slack <= 0, weight / delta, 0.0)
        return Coordinates(torch.ones_like(slack) > 0, least(slack.abs()), curvature)

    def conjugate(self, y: Tensor) -> Tensor:
        quotient = torch.where(y == 0, 0.0, y.square() * self.delta / 2 / self.weight)
        outside = y.abs() > self.weight * (1 + 16 * torch.finfo(y.dtype).eps)
        return sum_event((quotient + y * self.target).masked_fill(outside, torch.inf))

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(y.abs(), self.weight)

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) / smallest(self.delta, x)

    def guess(self) -> Tensor | None:
        return _guess(self.target)


@dataclass(frozen=True, eq=False)
class Logistic(Weighted, Smooth, Dualizable):
    """f(u) = weight sum log(1 + exp(-labels u)), labels -1 or 1; for a linear model: Logistic(y) @
    Matrix(A).

    conjugate  weight sum p log p + (1 - p) log(1 - p), p = -labels y / weight in [0, 1]
    """

    labels: Tensor  # (B, samples): -1 or 1

    batched: ClassVar[tuple[str, ...]] = ("weight", "labels")

    def density(self, x: Tensor) -> Tensor:
        return softplus(-self.labels * x)

    def grad(self, x: Tensor) -> Tensor:
        return self._slope(-self.labels * x)

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        margin = -self.labels * x
        return sum_event(self.weight * softplus(margin)), self._slope(margin)

    def _slope(self, margin: Tensor) -> Tensor:
        return torch.sigmoid(margin) * (-self.weight * self.labels)

    def conjugate(self, y: Tensor) -> Tensor:
        p = -self.labels * y / self.weight
        slack = 16 * torch.finfo(y.dtype).eps
        outside = (p < -slack) | (p > 1 + slack)
        p = p.clamp(0, 1)
        return sum_event(
            (self.weight * (torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p))).masked_fill(
                outside, torch.inf
            )
        )

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) / 4

    def hessian_lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) / (6 * 3**0.5)  # where the sigmoid is 1/2 -+ 1/sqrt(12)

    def guess(self) -> Tensor | None:
        return _guess(self.labels)


@dataclass(frozen=True, eq=False)
class Potential(Weighted, Smooth):
    """f(x) = weight * energy(x): any smooth function, a network say, written with torch operations.

    The gradient is autograd's. Samples must not interact (no batch norm in training mode). The
    batch cannot be indexed, so finished samples stay in the batch, frozen.
    """

    energy: Callable[[Tensor], Tensor]  # (B, *event) -> (B,)
    constant: Tensor | float | None = field(
        default=None, kw_only=True
    )  # Lipschitz constant of its gradient, if known

    def __post_init__(self) -> None:
        if not callable(self.energy):
            raise TypeError(
                "Potential needs a function of x, (B, *event) -> (B,), got "
                f"{type(self.energy).__name__}. Leave constants out of the energy."
            )

    def density(self, x: Tensor) -> Tensor:
        value = self.energy(x)
        if not isinstance(value, Tensor) or value.shape != (len(x),):
            tensor = isinstance(value, Tensor)
            got = f"shape {tuple(value.shape)}" if tensor else type(value).__name__
            raise ValueError(
                f"the energy of Potential returned {got} for x of shape {tuple(x.shape)}: one "
                f"value a sample is needed, ({len(x)},). Sum over the event dims, e.g. "
                "energy(x).flatten(1).sum(1)."
            )
        return value.reshape(-1, *[1] * (x.ndim - 1))

    @property
    def lipschitz_known(self) -> bool:
        return self.constant is not None

    def lipschitz(self, x: Tensor) -> Scalar | None:
        return None if self.constant is None else self.constant * largest(self.weight, x)

    def take(self, index: Tensor, x: Tensor) -> None:
        return None  # what the closure holds for each sample is not ours to index
