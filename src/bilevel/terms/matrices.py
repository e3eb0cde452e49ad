"""Terms of matrices, which are the last two dims: low rank, and Hankel structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, sum_event
from .base import Dualizable, Proximable, Weighted
from .norms import _fitting, _indicator
from .sets import _indicator as _inside
from .spectral import clip, project_nuclear, singular_values, soft_threshold


def matrix_singular_values(x: Tensor) -> Tensor:  # (B, ..., m, n) -> (B, ..., min(m, n), 1)
    if x.ndim < 3:
        raise ValueError(
            f"matrices are the last two dims of x, after the batch: (B, ..., m, n), got "
            f"{tuple(x.shape)}. For one matrix pass x[None]."
        )
    return singular_values(x)[..., None]


def _largest(x: Tensor) -> Tensor:  # (B, ..., 1, 1)
    return matrix_singular_values(x).amax(-2, keepdim=True)


def _sum(x: Tensor) -> Tensor:  # (B, ..., 1, 1)
    return matrix_singular_values(x).sum(-2, keepdim=True)


@dataclass(frozen=True, eq=False)
class Nuclear(Weighted, Proximable, Dualizable):
    """g(x) = weight sum of the singular values of each matrix (the last two dims): low rank.

    prox       U (s - step weight)_+ V^T, the singular values thresholded
    at a kink (a singular value that just vanishes) the derivative returned is that of one below;
    repeated singular values are none. Derivatives up to second order
    cost       an SVD, O(m^2 n) for m <= n
    Cai, Candes, Shen. A singular value thresholding algorithm for matrix completion. SIOPT, 2010.
    """

    def density(self, x: Tensor) -> Tensor:
        return _sum(x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return soft_threshold(x, expand(step, x) * self.weight)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return clip(y, self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(_largest(y), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(_largest(y), self.weight)


@dataclass(frozen=True, eq=False)
class SpectralNorm(Weighted, Proximable, Dualizable):
    """g(x) = weight times the largest singular value of each matrix (the last two dims).

    prox       x - projection onto the nuclear ball of radius step weight: the largest singular
               values are cut to one level
    at a kink (a singular value that just reaches the level) the derivative is that of one below;
    repeated singular values are none. Derivatives up to second order
    cost       an SVD, O(m^2 n) for m <= n
    Parikh, Boyd. Proximal algorithms, section 6.7. Foundations and Trends in Optimization, 2014.
    """

    def density(self, x: Tensor) -> Tensor:
        return _largest(x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - project_nuclear(x, expand(step, x) * self.weight)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return project_nuclear(y, self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(_sum(y), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(_sum(y), self.weight)


@dataclass(frozen=True, eq=False)
class NuclearBall(Proximable, Dualizable):
    """g(x) = 0 if the singular values of each matrix (the last two dims) sum to at most radius,
    else inf.

    prox       U (s - level)_+ V^T outside, the level by sorting; derivatives as Nuclear's
    conjugate  sum of radius times the largest singular value
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("radius",)

    def value(self, x: Tensor) -> Tensor:
        return _indicator(_sum(x) * (1 - slack(x)), self.radius)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return project_nuclear(x, self.radius)

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.radius * _largest(y))


@dataclass(frozen=True, eq=False)
class SpectralBall(Proximable, Dualizable):
    """g(x) = 0 if the largest singular value of each matrix (the last two dims) is at most radius,
    else inf.

    prox       U min(s, radius) V^T; derivatives as Nuclear's
    conjugate  sum of radius times the sum of the singular values
    """

    radius: Tensor | float  # >= 0: a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("radius",)

    def value(self, x: Tensor) -> Tensor:
        return _indicator(_largest(x) * (1 - slack(x)), self.radius)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return clip(x, self.radius)

    def conjugate(self, y: Tensor) -> Tensor:
        return sum_event(self.radius * _sum(y))


def slack(x: Tensor) -> float:
    """How far the singular values may be off, relatively."""
    return 8 * eps(x) * max(x.shape[-2:])


@dataclass(frozen=True, eq=False)
class Hankel(Proximable, Dualizable):
    """g(x) = 0 if each matrix (the last two dims) is constant along its antidiagonals, else inf.

    prox       the mean over each antidiagonal
    conjugate  0 if the antidiagonals of y sum to 0, else inf
    Gillard, Usevich. Hankel low-rank approximation and completion in time series analysis and
    forecasting: a brief review. Statistics and Its Interface, 2023.
    """

    def value(self, x: Tensor) -> Tensor:
        slack = 8 * eps(x) * sum(x.shape[-2:]) * x.abs().amax((-2, -1), keepdim=True)
        return _inside((x - self._means(x)).abs() <= slack, x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return self._means(x)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # a subspace, as above
        return y - self._means(y)

    def conjugate(self, y: Tensor) -> Tensor:
        slack = 64 * eps(y) * y.abs().amax((-2, -1), keepdim=True)
        return _inside(self._means(y).abs() <= slack, y)

    def _means(self, x: Tensor) -> Tensor:
        m, n = x.shape[-2:]
        number = torch.arange(m, device=x.device)[:, None] + torch.arange(n, device=x.device)
        number = number.flatten().expand(*x.shape[:-2], m * n)
        empty = x.new_zeros(*x.shape[:-2], m + n - 1)
        total = empty.scatter_add(-1, number, x.flatten(-2))
        size = empty.scatter_add(-1, number, torch.ones_like(x).flatten(-2))
        return (total / size).gather(-1, number).reshape(x.shape)
