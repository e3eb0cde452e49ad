"""The derivative at vertices of linear programs: sum_i w_i |(K x)_i| with x in a box."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from ..operators import Matrix
from ..solvers.saddle import times
from ..terms.norms import L1
from ..terms.sets import Box
from .blocks import Beside, Block, PseudoInverse, Square

if TYPE_CHECKING:
    from .active import Active

Z = tuple[Tensor, ...]
_TOGETHER = 16  # samples, of like size, whose factors are one call


def by_vertices(active: Active) -> Callable[[Z, bool], Z]:
    """`active.solve`, of such a program by factors of K alone."""
    problem, own = active.problem, active.own
    if own is None or len(problem.h) != 1 or problem.f is not None:
        return active.solve
    (h,), ((operator, rows),) = problem.h, active.composed
    known = isinstance(problem.g, Box) and isinstance(h.outer, L1)
    if not known or not isinstance(operator, Matrix):
        return active.solve
    K = operator.matrix.detach()
    return Vertices(K if K.ndim == 3 else K[None], own.support, ~rows.support).solve


class Vertices:
    """With (K x)_i at 0 and their duals inside the bounds for i in D, and x_j inside the box for j
    in P, the derivative of `Problem.kkt` is

        M = [1 - P, P K*; -D K, 1 - D],

    and M^-1 some products with K and C^-1, C = K_DP. That is square where the solution is a vertex
    and neither it nor its dual could be another; else C^+ gives the shortest solutions.
    """

    def __init__(self, K: Tensor, free: Tensor, zero: Tensor) -> None:
        """For K (B or 1, m, n) and the masks of P, (B, n), and D, (B, m)."""
        self.K, self.free, self.zero = K, free, zero
        size = free.sum(1)
        square, order = size == zero.sum(1), size.argsort()
        L = _inverted(K, size[square])
        self.parts: list[tuple[Tensor, Block | Beside]] = []
        for index in order[square[order]].split(_TOGETHER):
            most = 2 * size[index].sum() > len(index) * K.shape[2]
            masks = zero[index], free[index]
            C = Beside(L, *masks) if L is not None and most else Square(self._of(index), *masks)
            square[index] &= C.regular
            self.parts.append((index, C))
        rest = (~square).nonzero()[:, 0]
        if len(rest):
            self.parts.append((rest, PseudoInverse(self._of(rest), zero[rest], free[rest])))

    def _of(self, index: Tensor) -> Tensor:
        return self.K if len(self.K) == 1 else self.K[index]

    def solve(self, b: Z, transposed: bool) -> Z:
        """M^-1 b or M*^-1 b."""
        a, b_y = b
        K, bound, moving = self.K, ~self.free, ~self.zero
        if transposed:
            x, y = self._across(b_y, False), -self._across(a, True)
            return x + bound * (a + times(K.mT, y)), y + moving * (b_y - times(K, x))
        x, y = bound * a, moving * b_y
        return (
            x - self._across(b_y + times(K, x), False),
            y + self._across(a - times(K.mT, y), True),
        )

    def _across(self, r: Tensor, adjoint: bool) -> Tensor:
        """C^-1 of what stands in D, put into P; C*^-1 the other way round."""
        found = torch.zeros_like(self.zero if adjoint else self.free, dtype=r.dtype)
        for index, C in self.parts:  # the last one has the word on samples that come twice
            found[index] = C.solve(r[index], adjoint)
        return found


def _inverted(K: Tensor, size: Tensor) -> Tensor | None:
    """L = K^-1, where that one serves all samples and lessens the work on C of these sizes."""
    _, m, n = K.shape
    saved = (size**3 - (n - size) ** 3).clamp_min(0).sum()
    if len(K) > 1 or m != n or saved < 3 * n**3:
        return None
    L, _ = torch.linalg.inv_ex(K)
    condition = torch.linalg.matrix_norm(K) * torch.linalg.matrix_norm(L)
    return L if bool(condition < eps(K) ** -0.5) else None  # or rounding would be all that is left
