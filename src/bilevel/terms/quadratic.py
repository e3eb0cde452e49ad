"""Quadratic forms with a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, inner, largest, like, norm_event, smallest, tiny
from .base import Dualizable, Proximable, Smooth, Weighted


@dataclass(frozen=True, eq=False)
class Quadratic(Weighted, Smooth, Proximable, Dualizable):
    """f(x) = weight (1/2 <x, Q x> + <q, x>), x of shape (B, n), Q symmetric.

    prox       (I + s Q)^-1 (x - s q), s = step weight: a dense solve a call, n^3 / 3 operations
    conjugate  <y - w q, Q^-1 (y - w q)> / (2 w), w = weight; inf outside Q's range
    L and mu are w times the largest and the least eigenvalue. An indefinite Q is weakly convex: mu
    is negative, and the energy needs other terms to have a minimiser.
    """

    Q: Tensor  # (n, n), or (B, n, n): another one for each sample
    q: Tensor | float = 0.0

    batched: ClassVar[tuple[str, ...]] = ("weight", "q")

    def check(self, x: Tensor) -> None:
        shape, n = tuple(self.Q.shape), x.shape[-1]
        if x.ndim != 2 or shape not in ((n, n), (1, n, n), (len(x), n, n)):
            raise ValueError(
                f"Quadratic.Q has shape {shape} at x of shape {tuple(x.shape)}: x must be (B, n), "
                "and Q (n, n) or (B, n, n). Images are flattened; LeastSquares(b) @ operator "
                "needs no matrix."
            )
        Q = self.Q.detach()
        off, size = (Q - Q.mT).abs().amax((-2, -1)), Q.abs().amax((-2, -1))
        if bool((off > 1e-3 * size).any()):  # room for finite differences
            raise ValueError(
                f"Quadratic.Q is not symmetric: Q and its transpose differ by up to "
                f"{float(off.max()):.3g}. Pass (Q + Q.mT) / 2, which has the same values <x, Q x>."
            )

    def take(self, index: Tensor, x: Tensor) -> Quadratic | None:
        taken = super().take(index, x)
        own = self.Q.ndim == 3 and self.Q.shape[0] == len(x)
        return replace(taken, Q=self.Q[index]) if taken and own else taken

    @property
    def symmetric(self) -> Tensor:  # all that <x, Q x> knows of Q, so that differences agree
        return (self.Q + self.Q.mT) / 2

    def _times(self, x: Tensor) -> Tensor:
        return _product(self.symmetric, x)

    def density(self, x: Tensor) -> Tensor:
        return (x * (self._times(x) / 2 + self.q)).sum(-1, keepdim=True)

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * (self._times(x) + self.q)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = like(expand(step, x) * self.weight, x)
        matrix = torch.eye(x.shape[-1]).to(x) + s.unsqueeze(-1) * self.symmetric
        right = (x - s * self.q).unsqueeze(-1)
        return torch.linalg.solve(matrix, right).squeeze(-1)

    def conjugate(self, y: Tensor) -> Tensor:
        right = y - self.weight * self.q
        inverse = torch.linalg.pinv(self.symmetric, hermitian=True)
        x = _product(inverse, right)
        off = norm_event(right - self._times(x))
        ends = self._eigenvalues()
        concave = ends[..., 0] < -1e3 * eps(y) * ends[..., -1].abs()
        outside = concave | (off > 1e3 * eps(y) * norm_event(right) + tiny(y))
        w = (self.weight * torch.ones_like(y[:, :1])).squeeze(1)
        value = torch.where(norm_event(right) == 0, 0.0, inner(right, x) / (2 * w))
        return value.masked_fill(outside, torch.inf)

    def _eigenvalues(self) -> Tensor:  # ascending, one row a matrix
        return torch.linalg.eigvalsh(self.Q.detach())

    def lipschitz(self, x: Tensor) -> Scalar:
        ends = self._eigenvalues().abs().amax(-1)
        return largest(self.weight, x) * ends

    def strong_convexity(self, x: Tensor) -> Scalar:
        least = self._eigenvalues()[..., 0]
        return torch.minimum(smallest(self.weight, x) * least, largest(self.weight, x) * least)

    @property
    def quadratic(self) -> bool:
        return True

    def guess(self) -> Tensor | None:
        if self.Q.ndim == 3:
            return torch.zeros_like(self.Q[..., 0])
        given = isinstance(self.q, Tensor) and self.q.ndim >= 2
        return torch.zeros_like(self.q) if given else None  # type: ignore[arg-type]


def _product(Q: Tensor, x: Tensor) -> Tensor:  # (n, n) or (B, n, n), symmetric, times (B, n)
    return x @ Q if Q.ndim == 2 else (Q @ x.unsqueeze(-1)).squeeze(-1)
