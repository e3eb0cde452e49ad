"""Convolutions with small, learnable kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import reduce
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from .._broadcast import Scalar
from .base import Operator

_SAMPLES = 24  # of the spectrum, a degree of its polynomial
_LARGE = 8  # times the kernel

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
        return _Correlation.apply(x, self.kernel, self.padding)

    def absolute(self) -> Convolution:
        return replace(self, kernel=self.kernel.detach().abs())

    @torch.no_grad()
    def norm(self, x: Tensor) -> Scalar:
        """A bound, 1 % above on images that are large beside the kernel: the largest singular value
        of the kernel's spectrum, as if the image were endless. |spectrum|^2 is a trigonometric
        polynomial of degree size - 1, between n samples at most their largest / cos(pi degree / n)
        (Ehlich, Zeller 1964). On small images, by Lanczos."""
        size = self.kernel.shape[2:]
        if any(n < _LARGE * k for n, k in zip(x.shape[2:], size, strict=True)):
            return super().norm(x)
        samples = [_SAMPLES * max(k - 1, 1) for k in size]
        spectrum = torch.fft.rfftn(self.kernel, s=samples, dim=tuple(range(2, self.kernel.ndim)))
        matrices = spectrum.flatten(2).permute(2, 0, 1)  # (frequencies, out, in)
        gram = matrices.mH @ matrices if x.shape[1] <= len(self.kernel) else matrices @ matrices.mH
        between = math.cos(math.pi / _SAMPLES) ** self.dims
        return (torch.linalg.eigvalsh(gram).max() / between).sqrt()

    def adjoint(self, y: Tensor) -> Tensor:
        return _Transposed.apply(y, self.kernel, self.padding)


class _Bilinear(Function):
    """A product of an image and a kernel whose derivatives are such products again: torch's own
    would differentiate the fast ones by the slow ones."""

    generate_vmap_rule = True

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
        image, kernel, ctx.padding = inputs
        ctx.save_for_backward(image, kernel)
        ctx.save_for_forward(image, kernel)

    @classmethod
    def jvp(cls, ctx: Any, image_t: Tensor | None, kernel_t: Tensor | None, _: None) -> Tensor:
        image, kernel = ctx.saved_tensors
        pairs = [(image_t, kernel), (image, kernel_t)]
        parts = [cls.apply(a, b, ctx.padding) for a, b in pairs if a is not None and b is not None]
        return reduce(Tensor.add, parts)


class _Correlation(_Bilinear):
    """(x, kernel) -> the responses y."""

    @staticmethod
    def forward(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
        return _CONV[kernel.ndim - 2](x, kernel, padding=padding)

    @staticmethod
    def backward(ctx: Any, y: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        pulled = _Transposed.apply(y, kernel, ctx.padding) if ctx.needs_input_grad[0] else None
        correlated = _taps(x, y, kernel, ctx.padding) if ctx.needs_input_grad[1] else None
        return pulled, correlated, None


class _Transposed(_Bilinear):
    """(y, kernel) -> the adjoint of x -> responses, at y."""

    @staticmethod
    def forward(y: Tensor, kernel: Tensor, padding: int) -> Tensor:
        if y.is_cuda:
            return _TRANSPOSE[kernel.ndim - 2](y, kernel, padding=padding)
        return _overlap_add(y, kernel, padding)

    @staticmethod
    def backward(ctx: Any, x: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, kernel = ctx.saved_tensors
        responses = _Correlation.apply(x, kernel, ctx.padding) if ctx.needs_input_grad[0] else None
        correlated = _taps(x, y, kernel, ctx.padding) if ctx.needs_input_grad[1] else None
        return responses, correlated, None


def _taps(x: Tensor, y: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """The derivative of <y, kernel * x> in the kernel."""
    dims = kernel.ndim - 2
    options = ([1] * dims, [padding] * dims, [1] * dims, False, [0] * dims, 1)
    only = (False, True, False)
    return torch.ops.aten.convolution_backward(y, x, kernel, None, *options, only)[1]


def _overlap_add(y: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """The transposed convolution as one matrix product, 48 responses to 49 taps, and a sum of
    shifted planes: on CPU four times as fast as torch's, which is made for many channels in."""
    (_, channels, *size), image = kernel.shape, y.shape[2:]
    # detached: torch folds a product into one matrix, a copy of y, where it may need a derivative
    taps = (kernel.detach().flatten(1).mT @ y.detach().flatten(2)).view(
        len(y), channels, math.prod(size), *image
    )
    sides = [n + k - 1 - 2 * padding for n, k in zip(image, size, strict=True)]
    x = y.new_zeros(len(y), channels, *sides)
    for tap, corner in enumerate(product(*map(range, size))):
        starts = [i - padding for i in corner]
        ends = [min(s + n, side) for s, n, side in zip(starts, image, sides, strict=True)]
        there = tuple(slice(max(s, 0), e) for s, e in zip(starts, ends, strict=True))
        here = tuple(slice(t.start - s, t.stop - s) for s, t in zip(starts, there, strict=True))
        x[:, :, *there].add_(taps[:, :, tap, *here])  # += would copy the sum once more
    return x
