"""Log-sum-exp, the smooth maximum, and the cross-entropy made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, largest, sum_event
from .base import Dualizable, Smooth, Weighted
from .smooth import _guess


@dataclass(frozen=True, eq=False)
class LogSumExp(Weighted, Smooth, Dualizable):
    """f(x) = sum of weight log sum_i exp(x_i), the inner sum along `dim`: a smooth maximum.

    grad       weight softmax(x); L = weight / 2 (Bohning 1992)
    conjugate  weight sum p log p, p = y / weight in the simplex
    """

    dim: int = -1  # the weight broadcasts against x with this dim of size 1

    def density(self, x: Tensor) -> Tensor:
        return x.logsumexp(self.dim, keepdim=True)

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * x.softmax(self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        return _entropy_on_simplex(y / self.weight, self.weight, self.dim)

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) / 2


@dataclass(frozen=True, eq=False)
class CrossEntropy(Weighted, Smooth, Dualizable):
    """f(x) = sum of weight (log sum_i exp(x_i) - <target, x>), along `dim`: the multiclass logistic
    loss of scores x; softmax regression: CrossEntropy(t) @ Matrix(A).

    grad       weight (softmax(x) - target); L = weight / 2
    conjugate  weight sum p log p, p = target + y / weight in the simplex
    """

    target: Tensor  # of x's shape: probabilities, one-hot say, that add up to 1 along dim
    dim: int = -1

    batched: ClassVar[tuple[str, ...]] = ("weight", "target")

    def check(self, x: Tensor) -> None:
        target = self.target.detach()
        off = (target.sum(self.dim) - 1).abs()
        if target.numel() and bool(((target < -1e-3).any()) | (off > 1e-3).any()):
            raise ValueError(
                "CrossEntropy.target must be probabilities, >= 0 with sum 1 along "
                f"dim={self.dim}, got values from {float(target.min()):.6g} and sums up to "
                f"{float(off.max()):.6g} off 1. For class numbers use torch.nn.functional.one_hot."
            )

    def density(self, x: Tensor) -> Tensor:
        return x.logsumexp(self.dim, keepdim=True) - (self.target * x).sum(self.dim, keepdim=True)

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * (x.softmax(self.dim) - self.target)

    def conjugate(self, y: Tensor) -> Tensor:
        return _entropy_on_simplex(self.target + y / self.weight, self.weight, self.dim)

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) / 2

    def guess(self) -> Tensor | None:
        target = _guess(self.target)
        return None if target is None else torch.zeros_like(target)


def _entropy_on_simplex(p: Tensor, weight: Tensor | float, dim: int) -> Tensor:
    slack = 64 * eps(p) * p.shape[dim]
    off = (p.sum(dim, keepdim=True) - 1).abs()
    outside = (p < -slack).any(dim, keepdim=True) | (off > slack)
    p = p.clamp(min=0)
    dual = weight * torch.xlogy(p, p).sum(dim, keepdim=True)
    return sum_event(dual.masked_fill(outside, torch.inf))
