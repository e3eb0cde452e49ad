"""Orthogonal wavelets."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv1d, conv_transpose1d

from .._broadcast import Scalar
from .base import Operator, image_dims, real_numbers


@dataclass(frozen=True, eq=False)
class Wavelet(Operator):
    """The wavelet transform of the last `dims` dims, periodic, in Mallat's order: coarse
    coefficients first, (B, ..., *image) -> the same shape.

    Orthonormal: W*W = WW* = Id, |W| = 1. Coefficients are those of pywt.wavedecn in the mode
    "periodization", placed as by pywt.coeffs_to_array. Every size must be a multiple of 2^levels.
    The filters come from PyWavelets (pip install 'bilevel[operators]'); the transform is made of
    torch convolutions. O(pixels taps).

    [1] Mallat. A theory for multiresolution signal decomposition. IEEE PAMI, 1989.
    """

    name: str = "haar"  # of an orthogonal wavelet in PyWavelets: "db4", "sym8", "coif2", ...
    levels: int = 1
    dims: int = 2

    def __post_init__(self) -> None:
        image_dims("Wavelet", self.dims)
        if not isinstance(self.levels, int) or self.levels < 1:
            raise ValueError(f"Wavelet needs levels >= 1, got {self.levels!r}.")
        object.__setattr__(self, "_taps", _taps(self.name))

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, "x")
        for level in range(self.levels):
            x = self._on_corner(x, level, _analyse)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, "y")
        for level in reversed(range(self.levels)):
            y = self._on_corner(y, level, _synthesise)
        return y

    def norm(self, x: Tensor) -> Scalar:
        return 1 + 1e-9  # PyWavelets has its filters to ten digits

    def _on_corner(self, x: Tensor, level: int, transform) -> Tensor:
        """One level: what is coarse so far stands in the near corner, 2^-level of each size."""
        filters = _filters(self._taps, x)  # type: ignore[attr-defined]
        corner = x
        for axis in range(-self.dims, 0):
            corner = corner.narrow(axis, 0, x.shape[axis] >> level)
        for axis in range(-self.dims, 0):
            corner = transform(corner.movedim(axis, -1), filters).movedim(-1, axis)
        return _put_back(x, corner, self.dims)

    def _check(self, x: Tensor, name: str) -> None:
        real_numbers("Wavelet", x)
        if x.ndim <= self.dims:
            raise ValueError(
                f"Wavelet along {self.dims} dims needs {name} of shape (B, ..., *image), got "
                f"{tuple(x.shape)}. For one image pass {name}[None]: dim 0 is the batch."
            )
        step = 2**self.levels
        if any(n % step for n in x.shape[-self.dims :]):
            raise ValueError(
                f"Wavelet with {self.levels} levels needs image sizes that are multiples of "
                f"{step}, got {tuple(x.shape[-self.dims :])}. Crop or pad, or take fewer levels."
            )


def _taps(name: str) -> tuple[float, ...]:
    """The low-pass filter of an orthogonal wavelet."""
    try:
        from pywt import Wavelet as Filters  # type: ignore[attr-defined]
        from pywt import wavelist  # type: ignore[attr-defined]
    except ImportError as error:
        raise ImportError(
            "Wavelet needs PyWavelets for its filters: pip install 'bilevel[operators]'."
        ) from error
    names = [n for n in wavelist(kind="discrete") if n != "dmey"]  # orthogonal to 3 digits only
    if name not in names or not Filters(name).orthogonal:
        raise ValueError(
            f"Wavelet needs the name of an orthogonal wavelet, got {name!r}. There are: "
            f"{', '.join(n for n in names if Filters(n).orthogonal)}."
        )
    return tuple(Filters(name).dec_lo)


def _filters(taps: tuple[float, ...], like: Tensor) -> Tensor:  # -> (2, 1, taps)
    """Low and high pass; the high one is the low one backwards with every other sign turned."""
    low = like.new_tensor(taps)
    signs = like.new_tensor([1.0, -1.0]).repeat(len(taps) // 2)
    return torch.stack([low.flip(0), signs * low])[:, None]


def _analyse(x: Tensor, filters: Tensor) -> Tensor:
    """(..., n) -> (..., n): n / 2 low, then n / 2 high coefficients."""
    n, reach = x.shape[-1], filters.shape[-1] // 2 - 1
    place = torch.arange(-reach, n + reach, device=x.device) % n
    pairs = conv1d(x[..., place].flatten(0, -2).unsqueeze(1), filters, stride=2)
    return pairs.reshape(x.shape)


def _synthesise(y: Tensor, filters: Tensor) -> Tensor:
    """The adjoint of `_analyse`, and its inverse."""
    n, reach = y.shape[-1], filters.shape[-1] // 2 - 1
    place = torch.arange(-reach, n + reach, device=y.device) % n
    pairs = y.flatten(0, -2).unflatten(-1, (2, n // 2))
    wide = conv_transpose1d(pairs, filters, stride=2).reshape(*y.shape[:-1], len(place))
    return torch.zeros_like(y).index_add(-1, place, wide)


def _put_back(x: Tensor, corner: Tensor, dims: int) -> Tensor:
    """x with its near corner replaced."""
    for axis in range(-1, -dims - 1, -1):
        rest = x
        for before in range(-dims, axis):
            rest = rest.narrow(before, 0, corner.shape[before])
        size = corner.shape[axis]
        corner = torch.cat([corner, rest.narrow(axis, size, x.shape[axis] - size)], axis)
    return corner
