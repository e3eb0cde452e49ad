"""Tensors on the CPU as the kernels take them: arrays, a row for an image, a weight for a pixel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar
from .._one_thread import copied
from .._tangents import differentiates


def plain(x: Tensor) -> bool:
    """Whether a kernel takes x, and nothing of it is recorded."""
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return known and x.numel() > 0 and not differentiates()


def image_of(x: Tensor, dims: int, coupled: bool) -> torch.Size:
    """(C, *image), the shape of what one norm couples."""
    image = x.shape[x.ndim - dims - coupled :]
    return image if coupled else torch.Size((1, *image))


def loops_of(image: Sequence[int]) -> ModuleType:
    """The loops for images (C, *image)."""
    from . import gray_loops, rof_loops  # compiled when first used

    return gray_loops if len(image) == 3 and image[0] == 1 else rof_loops


def array(x: Tensor) -> np.ndarray:
    return (x.detach() if x.is_contiguous() else copied(x)).numpy()


def per_image(number: Scalar, x: Tensor, image: Sequence[int]) -> Tensor | None:  # -> (N,)
    """A number, or one a sample, for every image (C, *image) of x; None if it varies inside."""
    number = torch.as_tensor(number, dtype=x.dtype)
    inside = len(image) - (image[0] == 1)  # the dims of x that are one image
    if number.ndim > x.ndim or (number.numel() > 1 and number.shape[-inside:].numel() > 1):
        return None
    lead = (*x.shape[:-inside], *[1] * inside)
    return number.reshape(number.shape or (1,)).expand(lead).reshape(-1)


def per_pixel(number: Scalar, x: Tensor, image: Sequence[int]) -> Tensor | None:
    """A weight that broadcasts against x, or against its density, as (N, 1 or rows, W); None if it
    varies among coupled channels."""
    number, dims = torch.as_tensor(number, dtype=x.dtype), len(image) - 1
    coupled = image[0] > 1
    if number.ndim > x.ndim or (coupled and number.ndim > dims and number.shape[-dims - 1] > 1):
        return None
    rows = image[1:-1] if number.shape[-dims:-1].numel() > 1 else (1,) * (dims - 1)
    lead = (*x.shape[: x.ndim - dims - coupled], *(1,) * coupled)
    return number.expand(*lead, *rows, image[-1]).reshape(-1, math.prod(rows), image[-1])
