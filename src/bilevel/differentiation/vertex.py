"""The derivative at vertices of linear programs: sum_i w_i |(K x)_i| with x in a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from ..operators import Matrix
from ..solvers.saddle import times
from ..terms.manifolds import places
from ..terms.norms import L1
from ..terms.sets import Box

if TYPE_CHECKING:
    from .active import Active

Z = tuple[Tensor, ...]


def by_vertices(active: Active) -> Callable[[Z, bool], Z]:
    """`active.solve`, of the samples that are vertices by one batch of LU factors."""
    system = linear_system(active)
    if system is None:
        return active.solve
    rest = (~system.sound).nonzero()[:, 0]
    others = active.take(rest)
    if len(rest) == len(system.sound) or others is None:
        return active.solve

    def solve(b: Z, transposed: bool) -> Z:
        found = system.solve(b, transposed)
        if len(rest):
            parts = others.solve(tuple(part[rest] for part in b), transposed)
            found = tuple(a.index_copy(0, rest, p) for a, p in zip(found, parts, strict=True))
        return found

    return solve


def linear_system(active: Active) -> Vertices | None:
    """None for any other problem."""
    problem, own = active.problem, active.own
    if own is None or len(problem.h) != 1 or problem.f is not None:
        return None
    (h,), ((operator, rows),) = problem.h, active.composed
    known = isinstance(problem.g, Box) and isinstance(h.outer, L1)
    if not known or not isinstance(operator, Matrix):
        return None
    K = operator.matrix.detach()
    return Vertices(K if K.ndim == 3 else K[None], own.support, ~rows.support)


class Vertices:
    """Where as many (K x)_i are 0, with a dual inside its bounds (i in D), as x_j lie inside the
    box (j in P), the derivative of `Problem.kkt`,

        M = [1 - P, P K*; -D K, 1 - D],

    is solved by that of C = K_DP: one LU factor a sample, 2/3 |P|^3, and |P|^2 numbers. Smaller C
    are filled up by an identity, so that a batch is one call.
    """

    def __init__(self, K: Tensor, free: Tensor, zero: Tensor) -> None:
        """For K (B or 1, m, n) and the masks of P, (B, n), and D, (B, m)."""
        square = free.sum(1) == zero.sum(1)
        self.K, self.free, self.zero = K, free & square[:, None], zero & square[:, None]
        self.columns, self.real = places(self.free)
        self.rows, _ = places(self.zero)
        self.lu, self.pivots, _ = torch.linalg.lu_factor_ex(self._square())
        size, k = self.lu.diagonal(dim1=1, dim2=2).abs(), self.lu.shape[1]
        regular = size > 8 * k * eps(K) * (size.amax(1, keepdim=True) if k else 0)
        self.sound = square & regular.all(1)  # (B,): whether the sample is a vertex

    def _square(self) -> Tensor:  # C, (B, k, k)
        sample = torch.arange(len(self.K), device=self.K.device)[:, None, None]
        C = self.K[sample, self.rows[:, :, None], self.columns[:, None]]
        one = torch.eye(C.shape[1], dtype=C.dtype, device=C.device)
        return torch.where(self.real[:, :, None] & self.real[:, None], C, one)

    def solve(self, b: Z, transposed: bool) -> Z:
        """M^-1 b or M*^-1 b, of the samples that are sound."""
        a, b_y = b
        K, bound, moving = self.K, ~self.free, ~self.zero
        if transposed:
            x, y = self._across(b_y), -self._back(a)
            return x + bound * (a + times(K.mT, y)), y + moving * (b_y - times(K, x))
        x, y = bound * a, moving * b_y
        return x - self._across(b_y + times(K, x)), y + self._back(a - times(K.mT, y))

    def _across(self, r: Tensor) -> Tensor:
        """C^-1 of what stands in D, put into P."""
        return self._solved(r, self.rows, self.columns, self.free, False)

    def _back(self, r: Tensor) -> Tensor:
        """C*^-1 of what stands in P, put into D."""
        return self._solved(r, self.columns, self.rows, self.zero, True)

    def _solved(
        self, r: Tensor, here: Tensor, there: Tensor, like: Tensor, adjoint: bool
    ) -> Tensor:
        inner = (r.gather(1, here) * self.real)[..., None]
        found = torch.linalg.lu_solve(self.lu, self.pivots, inner, adjoint=adjoint)[..., 0]
        return torch.zeros_like(like, dtype=r.dtype).scatter(1, there, found * self.real)
