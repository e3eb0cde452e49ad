"""C^-1 for the block C = K_DP of some rows and columns of a matrix, other ones for each sample."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from .._broadcast import eps
from ..solvers.saddle import times
from ..terms.manifolds import places


class Block(ABC):
    """C of each sample, smaller ones filled up by 0, so that a batch is one call."""

    def __init__(self, K: Tensor, D: Tensor, P: Tensor) -> None:
        """For K (B or 1, m, n) and the masks D, (B, m), and P, (B, n)."""
        (self.rows, self.in_D), (self.columns, self.in_P) = places(D), places(P)
        self.D, self.P = D, P
        _, m, n = K.shape
        first = m * n * torch.arange(len(K), device=K.device)[:, None, None]
        self.C = K.take(first + n * self.rows[:, :, None] + self.columns[:, None])
        self.C *= self.in_D[:, :, None]
        self.C *= self.in_P[:, None]

    def solve(self, r: Tensor, adjoint: bool) -> Tensor:
        """C^-1 of what stands in D, put into P, (B, m) -> (B, n); C*^-1 the other way round."""
        here, there = (self.rows, self.in_D), (self.columns, self.in_P)
        if adjoint:
            here, there = there, here
        found = self._inverse(r.gather(1, here[0]) * here[1], adjoint) * there[1]
        like = self.D if adjoint else self.P
        return torch.zeros_like(like, dtype=r.dtype).scatter(1, there[0], found)

    @abstractmethod
    def _inverse(self, r: Tensor, adjoint: bool) -> Tensor:  # (B, k) -> (B, k)
        """C^-1 r, or C*^-1 r."""


class Square(Block):
    """|D| = |P| = k: one LU factor, 2/3 k^3."""

    def __init__(self, K: Tensor, D: Tensor, P: Tensor) -> None:
        super().__init__(K, D, P)
        self.C.diagonal(dim1=1, dim2=2).add_(~self.in_P)
        self.lu, self.pivots, _ = torch.linalg.lu_factor_ex(self.C.mT)  # by columns, as LAPACK
        size, k = self.lu.diagonal(dim1=1, dim2=2).abs(), self.lu.shape[1]
        least = 8 * k * eps(K) * (size.amax(1, keepdim=True) if k else 0)
        self.regular = (size > least).all(1)  # (B,)

    def _inverse(self, r: Tensor, adjoint: bool) -> Tensor:
        found = torch.linalg.lu_solve(self.lu, self.pivots, r[..., None], adjoint=not adjoint)
        return found[..., 0]


class PseudoInverse(Block):
    """C^+ in the place of C^-1, for any D and P: by singular values."""

    def __init__(self, K: Tensor, D: Tensor, P: Tensor) -> None:
        super().__init__(K, D, P)
        self.pinv = torch.linalg.pinv(self.C, rtol=8 * max(self.C.shape[1:]) * eps(K))

    def _inverse(self, r: Tensor, adjoint: bool) -> Tensor:
        return times(self.pinv.mT if adjoint else self.pinv, r)


class Beside:
    """C^-1 of a square K by the block of L = K^-1 that C is not in,

        C^-1 = L_PD - L_PD' (L_P'D')^-1 L_P'D,    ' for the rest of the indices:

    factors of size n - k."""

    def __init__(self, L: Tensor, D: Tensor, P: Tensor) -> None:
        """For L (1, n, n) and the masks D and P of K, (B, n), of as many indices."""
        self.L, self.D, self.P = L, D, P
        self.rest = Square(L, ~P, ~D)
        self.regular = self.rest.regular

    def solve(self, r: Tensor, adjoint: bool) -> Tensor:
        """As that of `Block`: K x = r + t, with t in D' so that x = 0 in P'."""
        L, here, there = (self.L.mT, self.P, self.D) if adjoint else (self.L, self.D, self.P)
        x = times(L, here * r)
        return there * (x - times(L, self.rest.solve(x, adjoint)))
