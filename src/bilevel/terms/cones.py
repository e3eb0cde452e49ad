"""Convex cones. Their conjugate is the indicator of the polar cone, {y : <x, y> <= 0 for all x}."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, eps
from .base import Dualizable, Proximable
from .isotonic import decreasing, increasing
from .manifolds import Manifold, segments
from .norms import _length
from .sets import _indicator
from .spectral import eigenvalues, positive_part


@dataclass(frozen=True, eq=False)
class SecondOrderCone(Proximable, Dualizable):
    """g(x) = 0 if |(x_2, ..., x_n)|_2 <= x_1 along `dim`, else inf.

    prox       x inside; 0 where |v| <= -t, for x = (t, v); else (1 + t / |v|) / 2 (|v|, v)
    conjugate  0 if -y lies in the cone, else inf
    at a kink (on the boundary of the cone or of its polar) the derivative is one of the sides'
    Alizadeh, Goldfarb. Second-order cone programming. Math. Programming, 2003.
    """

    dim: int = -1

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # t, v, |v|
        t, v = x.narrow(self.dim, 0, 1), x.narrow(self.dim, 1, x.shape[self.dim] - 1)
        return t, v, torch.linalg.vector_norm(v.detach(), dim=self.dim, keepdim=True)

    def value(self, x: Tensor) -> Tensor:
        t, _, length = self._split(x)
        return _indicator(length <= t * (1 + 16 * eps(x)), x)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a cone

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        t, v, size = self._split(x)
        inside, polar = size <= t, size <= -t
        length = torch.where(inside | polar, 1.0, _length(v, self.dim))
        half = (1 + t / length) / 2
        between = torch.cat([half * length, half * v], self.dim)
        return torch.where(inside, x, torch.where(polar, 0.0, between))

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # in the polar cone, exactly
        return -self.prox(-y, step)

    def conjugate(self, y: Tensor) -> Tensor:
        return self.value(-y)


@dataclass(frozen=True, eq=False)
class Monotone(Proximable, Dualizable):
    """g(x) = 0 if x_1 <= x_2 <= ... along `dim`, else inf; with increasing=False, if x_1 >= x_2 >=
    ...

    prox       isotonic regression: the mean over blocks, found by pooling adjacent violators; its
               derivative is the mean over the same blocks; O(n) a round, in batches
    conjugate  0 if sum y = 0 and the partial sums of y are >= 0 (<= 0), else inf
    at a kink (two blocks with one mean) the derivative is that of two blocks
    Best, Chakravarti. Active set algorithms for isotonic regression. Math. Programming, 1990.
    """

    dim: int = -1
    increasing: bool = True

    def value(self, x: Tensor) -> Tensor:
        slack = 8 * eps(x) * x.abs().amax(self.dim, keepdim=True)
        rise = x.diff(dim=self.dim) if self.increasing else -x.diff(dim=self.dim)
        return _indicator((rise >= -slack).all(self.dim, keepdim=True), x)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a vector

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        fit = increasing if self.increasing else decreasing
        return fit(x.movedim(self.dim, -1)).movedim(-1, self.dim)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # of a cone, the step plays none
        return y - self.prox(y, step)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w = x + dual
        p = self.prox(w, 1.0)
        return segments(p, (w - p).cumsum(self.dim).movedim(self.dim, -1)[..., :-1].abs(), self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        sums = y.cumsum(self.dim) if self.increasing else -y.cumsum(self.dim)
        slack = 64 * eps(y) * y.abs().sum(self.dim, keepdim=True)
        whole = sums.narrow(self.dim, -1, 1).abs()
        inside = (sums >= -slack).all(self.dim, keepdim=True) & (whole <= slack)
        return _indicator(inside, y)


@dataclass(frozen=True, eq=False)
class PositiveSemidefinite(Proximable, Dualizable):
    """g(x) = 0 if the matrices of the last two dims are symmetric with eigenvalues >= 0, else inf.

    prox       of the symmetric part (x + x^T) / 2, the eigenvalues cut at 0; the derivative by
               divided differences, which bear repeated eigenvalues; up to second order
    conjugate  0 if the symmetric part of y has no eigenvalue > 0, else inf
    at a kink (an eigenvalue 0) the derivative returned is that of a negative one
    cost       an eigendecomposition, O(n^3)
    Higham. Computing a nearest symmetric positive semidefinite matrix. LAA, 1988.
    """

    def value(self, x: Tensor) -> Tensor:
        symmetric = _symmetric(x)
        slack = 16 * eps(x) * x.shape[-1] * x.abs().amax((-2, -1), keepdim=True)
        least = eigenvalues(symmetric)[..., :1, None]
        return _indicator(((x - symmetric).abs() <= slack) & (least >= -slack), x)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin((-2, -1), keepdim=True)  # one a matrix

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return positive_part(_symmetric(x))

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # of a cone, the step plays none
        return y - self.prox(y, step)

    def conjugate(self, y: Tensor) -> Tensor:
        slack = 64 * eps(y) * y.shape[-1] * y.abs().amax((-2, -1), keepdim=True)
        most = eigenvalues(_symmetric(y))[..., -1:, None]
        return _indicator(most <= slack, y)


def _symmetric(x: Tensor) -> Tensor:
    if x.ndim < 3 or x.shape[-2] != x.shape[-1]:
        raise ValueError(
            "PositiveSemidefinite needs square matrices in the last two dims, after the batch: "
            f"(B, ..., n, n), got {tuple(x.shape)}. For one matrix pass x[None]."
        )
    return (x + x.mT) / 2
