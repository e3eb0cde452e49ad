"""Optimality conditions of a few samples at a time: what they record is let go before the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .inverse import Inverse
from .linear_solvers import LinearSolution, LinearSolver
from .linearisation import Linearisation
from .unrolled import stretch

if TYPE_CHECKING:
    from ..problem import Problem

Z = tuple[Tensor, ...]
_TOGETHER = 12 * 1024  # numbers of x: three images of 64 x 64, the 48 responses of which take 2 MB


class Pieces:
    """`Problem.kkt` of a batch, cut into pieces, each of which is recorded anew by each backward
    pass. One piece if a term cannot be indexed."""

    def __init__(self, problem: Problem, x: Tensor) -> None:
        count = max(_TOGETHER // max(x[:1].numel(), 1), 1)
        self.parts: list[tuple[Tensor, Problem]] = []
        for index in torch.arange(len(x), device=x.device).split(count):
            piece = None if len(index) == len(x) else problem.take(index, x)
            if piece is None:
                self.parts = [(torch.arange(len(x), device=x.device), problem)]
                break
            self.parts.append((index, piece))

    def __call__(self, z: Z) -> Z:
        found = [stretch(_kkt, (piece, *_rows(z, index)), True) for index, piece in self.parts]
        return tuple(torch.cat(rows) for rows in zip(*found, strict=True))


class PiecewiseInverse(Inverse):
    """An `Inverse` by pieces: M of a sample has nothing to do with the others."""

    def __init__(
        self,
        M: Linearisation,
        pieces: Pieces,
        solver: LinearSolver | None,
        tol: float,
        symmetric: bool,
    ) -> None:
        super().__init__(M, solver, tol, symmetric=symmetric)
        self.pieces = pieces

    def __call__(
        self,
        b: Tensor,
        transposed: bool,
        scale: Tensor | None = None,
        start: Tensor | None = None,
    ) -> LinearSolution:
        solved = []
        for index, piece in self.pieces.parts:
            M = Linearisation(_rows(self.M.z, index), lambda z, piece=piece: _kkt(piece, *z))
            inverse = Inverse(M, self.solver, self.tol, symmetric=self.symmetric)
            few = (None if part is None else part[index] for part in (scale, start))
            solved.append(inverse(b[index], transposed, *few))
        return LinearSolution(
            torch.cat([s.x for s in solved]),
            torch.cat([s.residual for s in solved]),
            max(s.iterations for s in solved),
            torch.cat([s.converged for s in solved]),
        )


def _kkt(problem: Problem, x: Tensor, *y: Tensor) -> Z:
    return problem.kkt(x, y)


def _rows(z: Z, index: Tensor) -> Z:
    return tuple(part[index] for part in z)
