"""Orthonormal transforms by the fast Fourier transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar
from .base import Operator, image_dims, real_numbers


@dataclass(frozen=True, eq=False)
class FFT(Operator):
    """(Fx)_k = n^(-1/2) sum_j x_j exp(-2 pi i jk / n) along the last `dims` dims; complex.

    Orthonormal: F*F = Id, |F| = 1. Frequency 0 stands at index 0. For real images, the default, the
    adjoint keeps the real part of the inverse transform; with real=False both sides are complex.
    """

    dims: int = 2
    real: bool = True  # whether x is real

    def __post_init__(self) -> None:
        image_dims("FFT", self.dims)

    def __call__(self, x: Tensor) -> Tensor:
        _check(x, self.dims, "x")
        if x.is_complex() == self.real:
            raise TypeError(
                f"FFT(real={self.real}) needs a {'real' if self.real else 'complex'} x, got "
                f"{x.dtype}. Say FFT(real={not self.real}), or make pairs of reals complex by "
                "@ AsComplex()."
            )
        if not x.numel():  # the FFT refuses an empty batch
            return x.to(x.dtype.to_complex())
        return torch.fft.fftn(x, dim=_axes(self.dims), norm="ortho")

    def adjoint(self, y: Tensor) -> Tensor:
        _check(y, self.dims, "y")
        back = torch.fft.ifftn(y, dim=_axes(self.dims), norm="ortho") if y.numel() else y
        return back.real if self.real else back

    def norm(self, x: Tensor) -> Scalar:
        return 1.0


@dataclass(frozen=True, eq=False)
class DCT(Operator):
    """(Cx)_k = s_k sum_j x_j cos(pi (j + 1/2) k / n), s_0 = n^(-1/2), else (2/n)^(1/2): the
    cosine transform of type II along the last `dims` dims.

    Orthonormal: C*C = CC* = Id, |C| = 1. Diagonalises Gradient()* Gradient(), and `Blur` with a
    symmetric kernel and boundary. By FFT (Makhoul 1980).
    """

    dims: int = 2

    def __post_init__(self) -> None:
        image_dims("DCT", self.dims)

    def __call__(self, x: Tensor) -> Tensor:
        _check(x, self.dims, "x")
        real_numbers("DCT", x)
        for axis in _axes(self.dims) if x.numel() else ():
            x = _dct(x.movedim(axis, -1)).movedim(-1, axis)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        _check(y, self.dims, "y")
        for axis in _axes(self.dims) if y.numel() else ():
            y = _inverse_dct(y.movedim(axis, -1)).movedim(-1, axis)
        return y

    def norm(self, x: Tensor) -> Scalar:
        return 1.0


def _dct(x: Tensor) -> Tensor:
    """Even samples forwards, odd ones backwards: one FFT of them, turned by a quarter pixel."""
    ordered = torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1)
    return _scale(x) * (torch.fft.fft(ordered) * _turn(x).conj()).real


def _inverse_dct(y: Tensor) -> Tensor:
    n = y.shape[-1]
    y = y / _scale(y)
    mirrored = torch.cat([torch.zeros_like(y[..., :1]), y[..., 1:].flip(-1)], -1)  # y_{n - k}
    ordered = torch.fft.ifft(torch.complex(y, -mirrored) * _turn(y)).real
    even = (n + 1) // 2
    place = torch.empty(n, dtype=torch.long, device=y.device)
    place[::2] = torch.arange(even, device=y.device)
    place[1::2] = torch.arange(n - 1, even - 1, -1, device=y.device)
    return ordered[..., place]


def _scale(x: Tensor) -> Tensor:
    n = x.shape[-1]
    scale = x.new_full((n,), math.sqrt(2 / n))
    scale[0] = math.sqrt(1 / n)
    return scale


def _turn(x: Tensor) -> Tensor:  # exp(i pi k / 2n)
    n = x.shape[-1]
    angle = torch.arange(n, dtype=x.dtype, device=x.device) * (math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


def _axes(dims: int) -> tuple[int, ...]:
    return tuple(range(-dims, 0))


def _check(x: Tensor, dims: int, name: str) -> None:
    if x.ndim <= dims:
        raise ValueError(
            f"a transform along {dims} dims needs {name} of shape (B, ..., *image), got "
            f"{tuple(x.shape)}. For one image pass {name}[None], as dim 0 is the batch."
        )


@dataclass(frozen=True, eq=False)
class AsComplex(Operator):
    """Pairs of reals as complex numbers, (B, ..., 2) -> (B, ...): complex images as unknowns."""

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[-1] != 2 or x.is_complex():
            raise ValueError(
                f"AsComplex needs real and imaginary parts in the last dim, real (B, ..., 2), got "
                f"{tuple(x.shape)}, {x.dtype}. A complex start becomes torch.view_as_real(x0)."
            )
        return torch.view_as_complex(x.contiguous())

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.view_as_real(y.resolve_conj())

    def norm(self, x: Tensor) -> Scalar:
        return 1.0


@dataclass(frozen=True, eq=False)
class AsReal(Operator):
    """Complex numbers as pairs of reals, (B, ...) -> (B, ..., 2), for terms of real numbers: the
    sum of the moduli is L21() @ AsReal() @ FFT()."""

    def __call__(self, x: Tensor) -> Tensor:
        if not x.is_complex():
            raise TypeError(
                f"AsReal needs complex numbers, got {x.dtype}. Leave it out of a real composition."
            )
        return torch.view_as_real(x.resolve_conj())

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.view_as_complex(y.contiguous())

    def norm(self, x: Tensor) -> Scalar:
        return 1.0
