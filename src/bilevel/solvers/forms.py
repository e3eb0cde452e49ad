"""Quadratic forms whose linear systems can be solved: diagonal, diagonal for a cosine or Fourier
transform, or small and dense."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import cached_property, singledispatch
from typing import Self

import torch
from torch import Tensor

from .._broadcast import eps, expand, norm_event, tiny
from ..operators.base import Identity, Operator
from ..operators.blur import Blur
from ..operators.boundaries import Periodic, Symmetric
from ..operators.differences import Gradient
from ..terms.base import Smooth
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.smooth import LeastSquares
from .hessian import dense_hessian, rows, uniform, weight_of
from .saddle import solved, sound, sturdy

DENSE = 1500  # unknowns up to which a form is written out


@dataclass(frozen=True, eq=False)
class Form(ABC):
    """<x, Q x> / 2 with Q positive definite, of which solutions of Q x = b are wanted."""

    data: Tensor  # (B or 1, ...)

    @abstractmethod
    def solve(self, b: Tensor) -> Tensor:  # (B, *event) -> the same
        """Q^-1 b, differentiable in b."""

    @property
    def sound(self) -> bool:
        """Whether a solve leaves nothing to mend."""
        return False

    def take(self, index: Tensor) -> Self:
        return replace(self, data=self.data[index]) if len(self.data) > 1 else self


class Diagonal(Form):
    def solve(self, b: Tensor) -> Tensor:
        return b / self.data


class Dense(Form):
    """data: the Cholesky factor, float64."""

    def solve(self, b: Tensor) -> Tensor:
        return solved(self.data, b.flatten(1).double()).reshape(b.shape).to(b)

    @cached_property
    def sound(self) -> bool:
        return sound(self.data)


class Rough(Dense):
    """data: the factor in float32, whose few digits do for steps that mend each other."""

    def solve(self, b: Tensor) -> Tensor:
        size = expand(norm_event(b).clamp_min(tiny(b)), b)  # float32 has a smaller range, too
        return solved(self.data, (b / size).flatten(1).float()).reshape(b.shape).to(b) * size

    @property
    def sound(self) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class Cosine(Form):
    """data: the symbol in the basis of the discrete cosine transform of the last `dims` dims."""

    dims: int

    def solve(self, b: Tensor) -> Tensor:
        return _cosines(_cosines(b, self.dims) / self.data, self.dims, inverse=True)


@dataclass(frozen=True, eq=False)
class Fourier(Form):
    """data: the symbol in the basis of the real Fourier transform of the last `dims` dims."""

    dims: int

    def solve(self, b: Tensor) -> Tensor:
        axes = tuple(range(-self.dims, 0))
        spectrum = torch.fft.rfftn(b, dim=axes) / self.data
        return torch.fft.irfftn(spectrum, s=b.shape[-self.dims :], dim=axes)


def _cosines(x: Tensor, dims: int, inverse: bool = False) -> Tensor:
    for axis in range(-dims, 0):
        x = _cosine(x, axis, inverse)
    return x


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


Symbol = tuple[type[Cosine] | type[Fourier] | None, int, Tensor]


@singledispatch
def symbol(operator: Operator, x: Tensor) -> Symbol | None:
    """(the form whose basis makes K* K diagonal, dims, its values there); None if there is none.
    The form is None where every basis does.

    An operator of your own joins by `symbol.register`.
    """
    return None


@symbol.register
def _(operator: Identity, x: Tensor) -> Symbol:
    return None, 0, x.new_ones(())


@symbol.register
def _(operator: Gradient, x: Tensor) -> Symbol:
    total = x.new_zeros(())
    for axis in range(-operator.dims, 0):
        n = x.shape[axis]
        angle = math.pi / (2 * n) * torch.arange(n, dtype=x.dtype, device=x.device)
        total = total + 4 * angle.sin().square().reshape(-1, *[1] * (-axis - 1))
    return Cosine, operator.dims, total


@symbol.register
def _(operator: Blur, x: Tensor) -> Symbol | None:
    """Periodic: the squared spectrum. Mirrored edges: the cosine transform of what one corner pixel
    becomes, over that of the pixel, if the kernel equals its mirror images."""
    if isinstance(operator.boundary, Periodic):
        return Fourier, 2, operator.spectrum(x).abs().square()
    k = operator.kernel
    even = all(k.shape[axis] % 2 and torch.equal(k, k.flip(axis)) for axis in (-2, -1))
    if not even or not isinstance(operator.boundary, Symmetric):
        return None
    corner = torch.zeros_like(x if not operator.shared else x[:1])
    corner[..., 0, 0] = 1.0
    return Cosine, 2, (_cosines(operator(corner), 2) / _cosines(corner, 2)).square()


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


_FEW, _MANY = 160, 2500  # unknowns between which a rough form is worth while
_ROOM = 2**26  # numbers in the rough forms of a batch


def worth(f: Smooth, x: Tensor) -> float:
    """How many steps of a first-order method cost as much as a rough form at x; inf if none is to
    be had. An operation of the factor takes a fortieth of one of a product with a matrix."""
    n, m = x.shape[1:].numel(), rows(f, x)
    fits = _FEW < n <= _MANY and x.numel() * n <= _ROOM and x.dtype == torch.float64
    return n / 80 * (1 + n / (3 * m)) if m and fits else math.inf


@torch.no_grad()
def rough(f: Smooth, x: Tensor) -> Form:
    """The Hessian at x, by half the time and memory; where it is singular in float32, nan."""
    L, info = torch.linalg.cholesky_ex(dense_hessian(f, x, torch.float32))
    singular = info > 0
    return Rough(L.masked_fill(singular[:, None, None], torch.nan) if bool(singular.any()) else L)


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


def _spectral(pieces: list[Piece], x: Tensor) -> Form | None:
    kind, dims, total = None, 0, x.new_zeros(())
    for f, operator in pieces:
        known, weight = symbol(operator, x), uniform(f, x)
        if known is None or weight is None:
            return None
        basis, size, values = known
        if basis is not None and kind is not None and (basis, size) != (kind, dims):
            return None
        kind, dims = (kind, dims) if basis is None else (basis, size)
        total = total + weight * values
    if kind is None or not bool((total > 100 * eps(x) * total.amax()).all()):
        return None
    return kind(total.reshape((1,) * (x.ndim - total.ndim) + total.shape), dims)
