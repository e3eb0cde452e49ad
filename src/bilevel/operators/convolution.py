"""Convolutions with small, learnable kernels."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor
from torch.nn import functional

from .base import Operator

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSE = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@dataclass(frozen=True, eq=False)
class Convolution(Operator):
    """A filter bank (correlation, as torch.nn.functional.conv): (B, in, *image) -> (B, out,
    *image').

    kernel (out, in, *size) with 1, 2 or 3 image dims. The image is extended by `padding` zeros on
    each side; without padding only full overlaps count, and the response is size - 1 smaller than
    the image.
    """

    kernel: Tensor
    padding: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Tensor) or self.kernel.ndim not in (3, 4, 5):
            got = (
                tuple(self.kernel.shape)
                if isinstance(self.kernel, Tensor)
                else type(self.kernel).__name__
            )
            raise ValueError(
                f"Convolution needs a kernel (out, in, *size) with 1, 2 or 3 image dims, got {got}."
            )
        if not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(
                "Convolution needs padding, a number of pixels >= 0 on each side, got "
                f"{self.padding!r}. For the size of the image take half the kernel's."
            )

    @property
    def dims(self) -> int:
        return self.kernel.ndim - 2

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != self.kernel.ndim or x.shape[1] != self.kernel.shape[1]:
            raise ValueError(
                f"Convolution with a kernel {tuple(self.kernel.shape)} needs x of shape (B, "
                f"{self.kernel.shape[1]}, "
                f"*image) with {self.dims} image dims, got {tuple(x.shape)}."
            )
        return _CONV[self.dims](x, self.kernel, padding=self.padding)

    def absolute(self) -> Convolution:
        return replace(self, kernel=self.kernel.detach().abs())

    def adjoint(self, y: Tensor) -> Tensor:
        return _TRANSPOSE[self.dims](y, self.kernel, padding=self.padding)
