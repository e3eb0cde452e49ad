"""A linear function, and the largest of several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, like, norm_event, sum_event
from .base import Dualizable, Proximable, Smooth, Weighted
from .smooth import _guess
from .threshold import project_simplex


@dataclass(frozen=True, eq=False)
class Linear(Weighted, Smooth, Proximable, Dualizable):
    """f(x) = weight <costs, x>; the costs of a linear program, unaries of a segmentation.

    prox       x - step weight costs
    conjugate  0 at weight costs, else inf
    """

    costs: Tensor  # (B, *event), or broadcasts against x

    batched: ClassVar[tuple[str, ...]] = ("weight", "costs")

    def density(self, x: Tensor) -> Tensor:
        return self.costs * x

    def grad(self, x: Tensor) -> Tensor:
        return (self.weight * self.costs).expand_as(x)

    def lipschitz(self, x: Tensor) -> Scalar:
        return 0.0

    @property
    def quadratic(self) -> bool:
        return True

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - expand(step, x) * self.weight * self.costs

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return self.grad(y)

    def conjugate(self, y: Tensor) -> Tensor:
        target = self.grad(y)
        outside = norm_event(y - target) > 64 * eps(y) * norm_event(target)
        return y.new_zeros(len(y)).masked_fill(outside, torch.inf)

    def guess(self) -> Tensor | None:
        costs = _guess(self.costs)
        return None if costs is None else torch.zeros_like(costs)


@dataclass(frozen=True, eq=False)
class Largest(Weighted, Proximable, Dualizable):
    """g(x) = sum of weight max_i x_i along `dim`; what the second player of a matrix game takes:
    Largest() @ Matrix(A) + Simplex().

    prox       x - projection onto the simplex of total step weight
    conjugate  0 if y >= 0 and sum y = weight, else inf
    at a kink (entries that just reach the largest) the derivative returned is that of one below it
    """

    dim: int = -1  # the weight broadcasts against x with this dim of size 1

    def density(self, x: Tensor) -> Tensor:
        return x.amax(self.dim, keepdim=True)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - project_simplex(x, expand(step, x) * self.weight, self.dim)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # step plays no part
        return project_simplex(y, self.weight, self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        size = y.abs().sum(self.dim, keepdim=True) + like(self.weight, y)
        slack = 8 * eps(y) * y.shape[self.dim] * size
        off = (y.sum(self.dim, keepdim=True) - self.weight).abs() > slack
        outside = off | (y < -slack).any(self.dim, keepdim=True)
        return sum_event(torch.zeros_like(size).masked_fill(outside, torch.inf))
