"""Quadratic forms whose linear systems can be solved: diagonal, diagonal for a cosine transform, or
small and dense."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import singledispatch
from typing import Self

import torch
from torch import Tensor

from ..operators.base import Identity, Operator
from ..operators.differences import Gradient
from ..terms.base import Smooth
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.smooth import LeastSquares
from .hessian import dense_hessian, uniform, weight_of
from .saddle import sturdy

DENSE = 1500  # unknowns up to which a form is written out


@dataclass(frozen=True, eq=False)
class Form(ABC):
    """<x, Q x> / 2 with Q positive definite, of which solutions of Q x = b are wanted."""

    data: Tensor  # (B or 1, ...)

    @abstractmethod
    def solve(self, b: Tensor) -> Tensor:  # (B, *event) -> the same
        """Q^-1 b, differentiable in b."""

    def take(self, index: Tensor) -> Self:
        return replace(self, data=self.data[index]) if len(self.data) > 1 else self


class Diagonal(Form):
    def solve(self, b: Tensor) -> Tensor:
        return b / self.data


class Dense(Form):
    """data: the Cholesky factor, float64."""

    def solve(self, b: Tensor) -> Tensor:
        flat = b.flatten(1).double()
        if len(self.data) == 1:
            solved = torch.cholesky_solve(flat.mT, self.data[0]).mT
        else:
            solved = torch.cholesky_solve(flat[..., None], self.data)[..., 0]
        return solved.reshape(b.shape).to(b)


@dataclass(frozen=True, eq=False)
class Cosine(Form):
    """data: the symbol in the basis of the discrete cosine transform of the last `dims` dims."""

    dims: int

    def solve(self, b: Tensor) -> Tensor:
        for axis in range(-self.dims, 0):
            b = _cosine(b, axis)
        b = b / self.data
        for axis in range(-self.dims, 0):
            b = _cosine(b, axis, inverse=True)
        return b


def _cosine(x: Tensor, axis: int, inverse: bool = False) -> Tensor:
    """The orthonormal DCT-II along an axis, or its inverse, by one FFT of twice the length."""
    n, x = x.shape[axis], x.movedim(axis, -1)
    k = torch.arange(n, dtype=x.dtype, device=x.device)
    turn = torch.polar(torch.ones_like(k), -math.pi * k / (2 * n))
    norm = ((1 + (k > 0).to(k)) / n).sqrt()
    if inverse:
        wide = torch.fft.fft(norm * turn * x, 2 * n)
        y = wide.real[..., :n]
    else:
        y = norm * (turn * torch.fft.fft(x, 2 * n)[..., :n]).real
    return y.movedim(-1, axis)


@singledispatch
def symbol(operator: Operator, x: Tensor) -> tuple[int, Tensor] | None:
    """(dims, the symbol of K* K in the cosine basis of the last dims); None if it is not diagonal
    there.

    An operator of your own joins by `symbol.register`.
    """
    return None


@symbol.register
def _(operator: Identity, x: Tensor) -> tuple[int, Tensor]:
    return 0, x.new_ones(())


@symbol.register
def _(operator: Gradient, x: Tensor) -> tuple[int, Tensor]:
    total = x.new_zeros(())
    for axis in range(-operator.dims, 0):
        n = x.shape[axis]
        angle = math.pi / (2 * n) * torch.arange(n, dtype=x.dtype, device=x.device)
        total = total + 4 * angle.sin().square().reshape(-1, *[1] * (-axis - 1))
    return operator.dims, total


@torch.no_grad()
def diagonalised(f: Smooth, x: Tensor) -> Form | None:
    """The Hessian of f, where it is diagonal, maybe after a transform."""
    pieces = _pieces(f)
    return None if pieces is None else _diagonal(pieces, x) or _spectral(pieces, x)


@torch.no_grad()
def form(f: Smooth, x: Tensor) -> Form | None:
    """The Hessian of f at x, in a form that can be solved with; None where none is known."""
    found = diagonalised(f, x)
    if found is not None:
        return found
    if x[0].numel() > DENSE:
        return None
    H = dense_hessian(f, x).double()
    return Dense(sturdy(H))


Piece = tuple[LeastSquares, Operator]  # weight / 2 |K x - target|^2


def _pieces(f: Smooth) -> list[Piece] | None:
    if isinstance(f, SmoothSum):
        parts = [_pieces(term) for term in f.terms]
        return None if None in parts else [p for part in parts for p in part]  # type: ignore[union-attr]
    if isinstance(f, LeastSquares):
        return [(f, Identity())]
    if isinstance(f, SmoothComposition) and isinstance(f.outer, LeastSquares):
        return [(f.outer, f.operator)]
    return None


def _diagonal(pieces: list[Piece], x: Tensor) -> Diagonal | None:
    if not all(isinstance(operator, Identity) for _, operator in pieces):
        return None
    total = sum((weight_of(f, x) for f, _ in pieces), x.new_zeros(()))
    return Diagonal(total) if bool((total > 0).all()) else None  # type: ignore[union-attr, operator]


def _spectral(pieces: list[Piece], x: Tensor) -> Cosine | None:
    dims, total = 0, x.new_zeros(())
    for f, operator in pieces:
        known, weight = symbol(operator, x), uniform(f, x)
        if known is None or weight is None or (known[0] and dims and known[0] != dims):
            return None
        dims, total = max(dims, known[0]), total + weight * known[1]
    total = total.reshape((1,) * (x.ndim - total.ndim) + total.shape)
    return Cosine(total, dims) if bool((total > 0).all()) else None
