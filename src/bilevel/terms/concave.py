"""Penalties phi(|x| / scale), phi concave and smooth: from L1 (a large scale) to L0 (a small
one)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, largest, like, smallest, tiny
from .base import Proximable, Weighted


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
    def slope(self, u: Tensor) -> Tensor:
        """phi'(u)."""

    @abstractmethod
    def curvature(self, u: Tensor) -> Tensor:
        """phi''(u)."""

    @abstractmethod
    def root(self, t: Tensor, s: Tensor) -> Tensor:
        """The largest u with u + s phi'(u) = t, nearly; anything finite where there is none."""

    def density(self, x: Tensor) -> Tensor:
        return self.phi(x.abs() / self.scale)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t, scale = x.abs() / self.scale, self.scale
        s = like(expand(step, x) * self.weight / scale**2, x).expand_as(x)
        with torch.no_grad():
            u = self._newton(self.root(t, s), t, s)
            better = s * self.phi(u.clamp(min=0)) + (u - t).square() / 2 < t.square() / 2
            away = ~(t <= s) | ((s * self.bend > 1) & (u > 0) & better)  # NaN stays NaN
            u = torch.where(away, u, 1.0)  # elsewhere any finite number, not used
        t = torch.where(away, t, 1.0)
        for _ in range(2):  # recorded: from a root without a history, right to third derivatives
            u = self._newton(u, t, s)
        return torch.where(away, scale * u, 0.0) * x.sign()

    def _newton(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        rise = 1 + s * self.curvature(u)
        return u - (u + s * self.slope(u) - t) / torch.where(rise > 0, rise, 1.0)

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

    def slope(self, u: Tensor) -> Tensor:
        return (1 + u).reciprocal()

    def curvature(self, u: Tensor) -> Tensor:
        return -(1 + u).square().reciprocal()

    def root(self, t: Tensor, s: Tensor) -> Tensor:
        root = ((1 + t).square() - 4 * s).clamp(min=0).sqrt()
        other = (root + 1 - t).clamp_min(tiny(t))  # minus twice the other root
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

    def slope(self, u: Tensor) -> Tensor:
        return (1 + u).square().reciprocal()

    def curvature(self, u: Tensor) -> Tensor:
        return -2 / ((1 + u).square() * (1 + u))

    def root(self, t: Tensor, s: Tensor) -> Tensor:  # u^3 - (1 + t) u^2 + s = 0 for 1 + u
        angle = (1 - 13.5 * s / (1 + t) ** 3).clamp(-1, 1).acos()
        return (1 + t) * (1 + 2 * (angle / 3).cos()) / 3 - 1


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

    def slope(self, u: Tensor) -> Tensor:
        return (-u).exp()

    def curvature(self, u: Tensor) -> Tensor:
        return -(-u).exp()

    def root(self, t: Tensor, s: Tensor) -> Tensor:  # W by its series at the branch point, or at 0
        y = (s * (-t).exp()).clamp(max=1 / torch.e)
        p = (2 * (1 - torch.e * y)).clamp(min=0).sqrt()
        branch = -1 + p - p**2 / 3 + 11 / 72 * p**3 - 43 / 540 * p**4
        u = t + torch.where(y < 0.1, -y - y**2 - 1.5 * y**3, branch)
        for _ in range(3):
            u = self._newton(u, t, s)
        return u
