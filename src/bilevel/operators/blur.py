"""Blurs: convolutions of images with one, possibly large, kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._broadcast import Scalar
from .._tangents import differentiates, traced
from .base import Operator, lanczos_norm, real_numbers
from .boundaries import Boundary, Margin, Periodic, Symmetric


@dataclass(frozen=True, eq=False)
class Blur(Operator):
    """(k * x)_i = sum_j k_j x_{i - j + c}, c = size // 2 the centre: (B, ..., H, W) -> the same.

    A convolution (the kernel is mirrored; `Convolution` correlates), each channel alone, by FFT:
    O(HW log HW) for every size of kernel, and of image: sizes with large factors, slow by FFT, are
    filled up, but on a torus. Gradients in the kernel, too, of every order.
    norm   max |k^| for Periodic(), exact, and sum k for Symmetric() and a kernel >= 0 that is its
           own mirror image along both dims; else by Lanczos iteration
    """

    kernel: Tensor  # (h, w), or (B, h, w): one a sample
    boundary: Boundary = Symmetric()
    _kept: dict[tuple, tuple[Tensor, Tensor]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        k = self.kernel
        if not isinstance(k, Tensor) or k.ndim not in (2, 3) or 0 in k.shape[-2:]:
            got = tuple(k.shape) if isinstance(k, Tensor) else type(k).__name__
            raise ValueError(
                f"Blur needs a kernel (h, w), or (B, h, w) for one a sample, got {got}. "
                "A filter bank (out, in, h, w) is a Convolution."
            )
        real_numbers("Blur's kernel", k)
        if not isinstance(self.boundary, Boundary):
            raise TypeError(
                "Blur needs a boundary, Symmetric(), Periodic() or Zero(), got "
                f"{self.boundary!r}: how the image goes on beyond its edges."
            )

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x, "x")
        if not x.numel():
            return x * self.kernel.sum()  # the FFT refuses an empty batch
        margins = self._margins
        wide = self.boundary.extend(x, *margins)
        product = self._multiply(wide, self.spectrum(wide))
        (top, _), (left, _) = margins
        return product[..., top : top + x.shape[-2], left : left + x.shape[-1]]

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y, "y")
        if not y.numel():
            return y * self.kernel.sum()
        (top, bottom), (left, right) = margins = self._margins
        wide = pad(y, (left, right, top, bottom))
        return self.boundary.fold(self._multiply(wide, self.spectrum(wide).conj()), *margins)

    @property
    def _margins(self) -> tuple[Margin, Margin]:
        h, w = self.kernel.shape[-2:]
        return (
            self.boundary.margin(h - 1 - h // 2, h // 2),
            self.boundary.margin(w - 1 - w // 2, w // 2),
        )

    def spectrum(self, wide: Tensor) -> Tensor:
        """k^: the transform of the kernel on the grid of `wide`, its centre at the origin; kept for
        the next time where it has no derivative."""
        if traced() or differentiates():
            return self._spectrum(wide)
        key = wide.ndim, wide.shape[-2:]
        kernel, spectrum = self._kept.get(key, (None, None))
        if kernel is None or not torch.equal(kernel, self.kernel):  # it may change in place
            spectrum = self._spectrum(wide)
            self._kept.clear()
            self._kept[key] = self.kernel.clone(), spectrum
        return spectrum  # type: ignore[return-value]

    def _spectrum(self, wide: Tensor) -> Tensor:
        (h, w), (rows, columns) = self.kernel.shape[-2:], self._grid(wide)
        grid = pad(self.kernel, (0, columns - w, 0, rows - h))
        spectrum = torch.fft.rfft2(grid.roll((-(h // 2), -(w // 2)), (-2, -1)))
        ones = [1] * (wide.ndim - 3)
        return spectrum if self.shared else spectrum.reshape(-1, *ones, *spectrum.shape[-2:])

    def _grid(self, wide: Tensor) -> tuple[int, int]:
        """The FFT's: that of `wide` on a torus; else, as margins part the edges, any larger one."""
        rows, columns = wide.shape[-2:]
        torus = isinstance(self.boundary, Periodic)
        return (rows, columns) if torus else (_smooth(rows), _smooth(columns))

    def _multiply(self, wide: Tensor, spectrum: Tensor) -> Tensor:
        grid, (rows, columns) = self._grid(wide), wide.shape[-2:]
        product = torch.fft.irfft2(torch.fft.rfft2(wide, s=grid) * spectrum, s=grid)
        return product[..., :rows, :columns]

    def _check(self, x: Tensor, name: str) -> None:
        real_numbers("Blur", x)
        image, size = tuple(x.shape[-2:]), tuple(self.kernel.shape[-2:])
        if x.ndim < 3:
            raise ValueError(
                f"Blur needs {name} of shape (B, ..., H, W), got {tuple(x.shape)}. For one image "
                f"pass {name}[None]: dim 0 is the batch."
            )
        if not self.shared and len(self.kernel) != len(x):
            raise ValueError(
                f"Blur has {len(self.kernel)} kernels, got {name} with a batch of {len(x)}. For "
                "one kernel for all samples pass it as (h, w)."
            )
        if size[0] > image[0] or size[1] > image[1]:
            raise ValueError(
                f"Blur has a kernel {size}, larger than the image {image}. Crop it, e.g. its zeros "
                "at the border."
            )

    def absolute(self) -> Blur:
        if isinstance(self.boundary, Symmetric) and bool((self.kernel < 0).any()):
            super().absolute()  # raises: where the mirror adds taps, |a + b| is not |a| + |b|
        return replace(self, kernel=self.kernel.detach().abs())

    @property
    def shared(self) -> bool:
        return self.kernel.ndim == 2

    @torch.no_grad()
    def norm(self, x: Tensor) -> Scalar:
        self._check(x, "x")
        if self._averages:
            return self.kernel.sum((-2, -1))
        if not isinstance(self.boundary, Periodic) or not x.numel():
            return lanczos_norm(x, self)
        size = self.spectrum(x).abs()
        return size.amax() if self.shared else size.flatten(1).amax(1)

    @property
    def _averages(self) -> bool:
        """Whether the cosine transform makes it diagonal, a constant image having the largest
        value."""
        k = self.kernel
        odd = k.shape[-2] % 2 == 1 == k.shape[-1] % 2
        if not odd or not isinstance(self.boundary, Symmetric) or bool((k < 0).any()):
            return False
        return torch.equal(k, k.flip(-1)) and torch.equal(k, k.flip(-2))

    def take(self, index: Tensor, x: Tensor) -> Blur:
        return self if self.shared else replace(self, kernel=self.kernel[index])


def _smooth(n: int) -> int:
    """The least number from n on whose prime factors are 2, 3, 5 and 7: FFTs of others take up to
    five times as long."""
    while pow(2 * 3 * 5 * 7, n.bit_length(), n):
        n += 1
    return n
