"""Squares of the 1-norm and the maximum norm, conjugates of each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like, sum_event
from .base import Dualizable, Proximable, Weighted


@dataclass(frozen=True, eq=False)
class SquaredL1(Weighted, Proximable, Dualizable):
    """g(x) = weight/2 (sum |x_i|)^2 over the whole event: the exclusive lasso.

    prox       soft threshold by s |prox|_1, s = step weight, found by sorting; O(n log n)
    conjugate  |y|_inf^2 / (2 weight)

    [1] Evgeniou, Pontil, Spinellis, Tassiulas. Regularized robust portfolio estimation. 2015.
    """

    def density(self, x: Tensor) -> Tensor:
        return _whole(x.abs().flatten(1).sum(1).square() / 2, x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return _shrink(x, expand(step, x) * self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        return _over(SquaredLinf().density(y), self.weight)


@dataclass(frozen=True, eq=False)
class SquaredLinf(Weighted, Proximable, Dualizable):
    """g(x) = weight/2 max |x_i|^2 over the whole event.

    prox       x - s P(x / s), P the prox of (1/s)/2 |.|_1^2, s = step weight, by Moreau
    conjugate  |y|_1^2 / (2 weight)
    """

    def density(self, x: Tensor) -> Tensor:
        return _whole(x.abs().flatten(1).amax(1).square() / 2, x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = like(expand(step, x) * self.weight, x)
        positive = torch.where(s > 0, s, 1.0)
        return x - torch.where(s > 0, _shrink(x, 1 / positive), 0.0)  # homogeneous: s P(x / s)

    def conjugate(self, y: Tensor) -> Tensor:
        return _over(SquaredL1().density(y), self.weight)


def _shrink(x: Tensor, s: Tensor | float) -> Tensor:
    """p = soft threshold of x by s |p|_1: with the k largest |x| kept, s |p|_1 = s sum / (1 + s
    k)."""
    size = x.abs().flatten(1)
    s = like(s, x).expand(len(x), *[1] * (x.ndim - 1)).flatten(1)
    ordered = size.sort(dim=1, descending=True).values
    count = torch.arange(1, size.shape[1] + 1, dtype=x.dtype, device=x.device)
    thresholds = s * ordered.cumsum(1) / (1 + s * count)
    kept = (ordered > thresholds).sum(1, keepdim=True).clamp(min=1)
    return (x.sign().flatten(1) * (size - thresholds.gather(1, kept - 1)).clamp(min=0)).reshape(
        x.shape
    )


def _whole(value: Tensor, x: Tensor) -> Tensor:  # (B,) -> (B, 1, ..., 1)
    return value.reshape(-1, *[1] * (x.ndim - 1))


def _over(density: Tensor, weight: Tensor | float) -> Tensor:
    """density / weight, and 0 / 0 = 0: where the weight is 0, so must y be."""
    return sum_event(torch.where(density == 0, 0.0, density / weight))
