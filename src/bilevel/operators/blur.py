"""Blurs: convolutions of images with one, possibly large, kernel."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._broadcast import Scalar
from .._tangents import differentiates
from .base import Operator, lanczos_norm, real_numbers
from .boundaries import Boundary, Margin, Periodic, Symmetric


@dataclass(frozen=True, eq=False)
class Blur(Operator):
    """(k * x)_i = sum_j k_j x_{i - j + c}, c = size // 2 the centre: (B, ..., H, W) -> the same.

    A convolution (the kernel is mirrored; `Convolution` correlates), each channel alone, by FFT:
    O(HW log HW) for every size of kernel. Gradients in the kernel, too, of every order.
    norm   max |k^| for Periodic(), exact; else by Lanczos iteration
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
        traced = torch._C._functorch.peek_interpreter_stack() is not None  # type: ignore[attr-defined]
        if traced or differentiates() or torch.compiler.is_compiling():
            return self._spectrum(wide)
        grid = wide.ndim, wide.shape[-2:]
        kernel, spectrum = self._kept.get(grid, (None, None))
        if kernel is None or not torch.equal(kernel, self.kernel):  # it may change in place
            spectrum = self._spectrum(wide)
            self._kept.clear()
            self._kept[grid] = self.kernel.clone(), spectrum
        return spectrum  # type: ignore[return-value]

    def _spectrum(self, wide: Tensor) -> Tensor:
        h, w = self.kernel.shape[-2:]
        grid = pad(self.kernel, (0, wide.shape[-1] - w, 0, wide.shape[-2] - h))
        spectrum = torch.fft.rfft2(grid.roll((-(h // 2), -(w // 2)), (-2, -1)))
        ones = [1] * (wide.ndim - 3)
        return spectrum if self.shared else spectrum.reshape(-1, *ones, *spectrum.shape[-2:])

    @staticmethod
    def _multiply(wide: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(wide) * spectrum, s=wide.shape[-2:])

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
        if not isinstance(self.boundary, Periodic) or not x.numel():
            return lanczos_norm(self, x)
        size = self.spectrum(x).abs()
        return size.amax() if self.shared else size.flatten(1).amax(1)

    def take(self, index: Tensor, x: Tensor) -> Blur:
        return self if self.shared else replace(self, kernel=self.kernel[index])
