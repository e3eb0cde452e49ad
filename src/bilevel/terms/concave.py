"""Penalties phi(|x| / scale), phi concave and smooth: from L1 (a large scale) to L0 (a small
one)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, largest, like, smallest
from .base import Proximable, Weighted

Curve = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class _Concave(Weighted, Proximable):
    """sum weight phi(|x_i| / scale), with phi'(0) = 1 and phi' convex.

    With t = |x| / scale and s = step weight / scale^2 the prox is the largest root of u + s phi'(u)
    = t, or 0: 0 for t <= s where s |phi''(0)| <= 1, and there the prox is continuous; else the
    better of the two.
    """

    scale: Tensor | float  # > 0: where the penalty bends

    batched: ClassVar[tuple[str, ...]] = ("weight", "scale")
    bend: ClassVar[float]  # |phi''(0)|, the largest

    @abstractmethod
    def phi(self, u: Tensor) -> Tensor:
        """The penalty for u >= 0."""

    @abstractmethod
    def root(self, t: Tensor, s: Tensor) -> Tensor:
        """The largest u with u + s phi'(u) = t; anything finite where there is none."""

    def density(self, x: Tensor) -> Tensor:
        return self.phi(x.abs() / self.scale)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t, scale = x.abs() / self.scale, self.scale
        s = like(expand(step, x) * self.weight / scale**2, x).expand_as(x)
        with torch.no_grad():
            u = self.root(t, s)
            better = s * self.phi(u.clamp(min=0)) + (u - t).square() / 2 < t.square() / 2
            away = (t > s) | ((s * self.bend > 1) & (u > 0) & better)
        u = self.root(torch.where(away, t, 2 + s), s)  # where it is 0: any root, not used
        return torch.where(away, scale * u, 0.0) * x.sign()

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -self.bend * largest(self.weight, x) / smallest(self.scale, x) ** 2


@dataclass(frozen=True, eq=False)
class LogSum(_Concave):
    """g(x) = weight sum log(1 + |x_i| / scale).

    prox  0, or the larger root of a quadratic: (|x| - scale + sqrt((|x| + scale)^2 - 4 s)) / 2, s =
          step weight; continuous for s <= scale^2
    mu    -weight / scale^2

    [1] Candes, Wakin, Boyd. Enhancing sparsity by reweighted l1 minimization. JFAA, 2008.
    [2] Malioutov, Aravkin. Iterative log thresholding. ICASSP, 2014.
    """

    bend: ClassVar[float] = 1.0

    def phi(self, u: Tensor) -> Tensor:
        return u.log1p()

    def root(self, t: Tensor, s: Tensor) -> Tensor:
        square = (1 + t).square() - 4 * s
        root = torch.where(square > 0, square, 1.0).sqrt()
        other = torch.where(t > 1, 1.0, root + 1 - t)  # minus twice the other root
        return torch.where(t > 1, (t - 1 + root) / 2, 2 * (t - s) / other)  # no cancellation


@dataclass(frozen=True, eq=False)
class Geman(_Concave):
    """g(x) = weight sum |x_i| / (|x_i| + scale).

    prox  0, or the largest root of a cubic; continuous for step weight <= scale^2 / 2
    mu    -2 weight / scale^2

    [1] Geman, Yang. Nonlinear image recovery with half-quadratic regularization. TIP, 1995.
    """

    bend: ClassVar[float] = 2.0

    def phi(self, u: Tensor) -> Tensor:
        return u / (1 + u)

    def root(self, t: Tensor, s: Tensor) -> Tensor:
        with torch.no_grad():  # u^3 - (1 + t) u^2 + s = 0 for 1 + u
            angle = (1 - 13.5 * s / (1 + t) ** 3).clamp(-1, 1).acos()
            u = (1 + t) * (1 + 2 * (angle / 3).cos()) / 3 - 1
        return _refined(u, t, s, lambda u: (1 + u) ** -2, lambda u: -2 * (1 + u) ** -3)


@dataclass(frozen=True, eq=False)
class ETP(_Concave):
    """g(x) = weight sum 1 - exp(-|x_i| / scale): the exponential-type penalty.

    prox  0, or scale (t + W(-s exp(-t))), t = |x| / scale, s = step weight / scale^2, W the
          principal branch of Lambert's function; continuous for s <= 1
    mu    -weight / scale^2

    [1] Gao, Wang, Zhang, Zhang. A feasible nonconvex relaxation approach to feature selection.
        AAAI, 2011.
    """

    bend: ClassVar[float] = 1.0

    def phi(self, u: Tensor) -> Tensor:
        return -(-u).expm1()

    def root(self, t: Tensor, s: Tensor) -> Tensor:
        with torch.no_grad():  # W(-y) by its series at the branch point y = 1/e, then Newton
            y = (s * (-t).exp()).clamp(max=1 / torch.e)
            p = (2 * (1 - torch.e * y)).clamp(min=0).sqrt()
            series = -1 + p - p**2 / 3 + 11 / 72 * p**3 - 43 / 540 * p**4
            u = t + torch.where(y < 0.1, -y - y**2 - 1.5 * y**3, series)
        return _refined(u, t, s, lambda u: (-u).exp(), lambda u: -(-u).exp())


def _refined(
    u: Tensor, t: Tensor, s: Tensor, slope: Curve, curvature: Curve, steps: int = 4
) -> Tensor:
    """Newton steps on u + s phi'(u) = t; the last two are recorded, and so right to the third
    derivative."""

    def newton(u: Tensor) -> Tensor:
        rise = 1 + s * curvature(u)
        return u - (u + s * slope(u) - t) / torch.where(rise > 0, rise, 1.0)

    with torch.no_grad():
        for _ in range(steps):
            u = newton(u)
    return newton(newton(u))
