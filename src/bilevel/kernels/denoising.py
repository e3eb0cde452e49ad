"""LeastSquares + TotalVariation on the CPU, as arrays: what the ROF kernel and FlatZones read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar
from .._one_thread import copied
from ..problem import Problem
from ..terms.smooth import LeastSquares
from ..terms.total_variation import TotalVariation


@dataclass(frozen=True, eq=False)
class Denoising:
    """The images or volumes of a batch in a row, (N, C, *image), C the channels that one norm
    couples, else 1; weight and mu one an image and column, or pixel. With their history."""

    target: Tensor  # (N, C, *image)
    weight: Tensor  # (N, 1 or rows, W), the rows those of all planes
    mu: Tensor  # as the weight
    isotropic: bool

    @staticmethod
    def of(problem: Problem, x: Tensor) -> Denoising | None:
        """A problem of this shape, None for any other."""
        terms = sorted(problem.terms, key=lambda term: type(term).__name__)
        if [type(term) for term in terms] != [LeastSquares, TotalVariation]:
            return None
        data, tv = terms
        assert isinstance(data, LeastSquares) and isinstance(tv, TotalVariation)
        if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
            return None
        if tv.coupled and not tv.isotropic:
            return None
        image = image_of(tv, x)
        mu, weight = per_pixel(data.weight, x, image), per_pixel(tv.weight, x, image)
        if mu is None or weight is None or not bool((mu > 0).all()):
            return None
        target = torch.as_tensor(data.target, dtype=x.dtype).expand_as(x).reshape(-1, *image)
        return Denoising(target, weight, mu, tv.isotropic)

    def even(self) -> Tensor | None:  # -> (N,)
        """mu of images in two dims, if it is one an image."""
        first = self.mu[:, :1, :1]
        return (
            first.reshape(-1) if self.target.ndim == 4 and bool((self.mu == first).all()) else None
        )


def image_of(tv: TotalVariation, x: Tensor) -> torch.Size:
    """(C, *image), the shape of what one norm couples."""
    image = x.shape[x.ndim - tv.dims - tv.coupled :]
    return image if tv.coupled else torch.Size((1, *image))


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
