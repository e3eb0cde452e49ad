"""Pixels that are seen, and pixels that are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, largest
from .base import Operator, take_fields


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """m x, pixel by pixel: inpainting where m is 0 or 1 (or bool), any diagonal matrix in general.

    The mask broadcasts against x: (H, W) is the same for all, (B, 1, H, W) one a sample.
    norm   max |m|, exact
    """

    mask: Tensor

    batched: ClassVar[tuple[str, ...]] = ("mask",)

    def __post_init__(self) -> None:
        if not isinstance(self.mask, Tensor):
            raise TypeError(
                f"Mask needs a tensor that broadcasts against x, got {type(self.mask).__name__}. "
                "Use torch.as_tensor(mask)."
            )

    def __call__(self, x: Tensor) -> Tensor:
        self._check(x)
        return self.mask * x

    def adjoint(self, y: Tensor) -> Tensor:
        self._check(y)
        return self.mask.conj() * y

    def _check(self, x: Tensor) -> None:
        pairs = list(zip(reversed(self.mask.shape), reversed(x.shape), strict=False))
        if self.mask.ndim > x.ndim or any(m not in (1, n) for m, n in pairs):
            raise ValueError(
                f"Mask of shape {tuple(self.mask.shape)} does not broadcast into x of shape "
                f"{tuple(x.shape)}. One mask a sample is (B, 1, ...) with x's number of dims."
            )

    def absolute(self) -> Mask:
        boolean = self.mask.dtype == torch.bool
        return self if boolean else replace(self, mask=self.mask.detach().abs())

    @property
    def shared(self) -> bool:  # cautious: the rank of x, which would tell, is not known here
        return self.mask.ndim < 2 or self.mask.shape[0] == 1

    @torch.no_grad()
    def norm(self, x: Tensor) -> Scalar:
        return largest((self.mask * x.new_ones(())).abs(), x)

    def take(self, index: Tensor, x: Tensor) -> Mask:
        return take_fields(self, index, x)
