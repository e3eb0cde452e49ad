"""LeastSquares + TotalVariation on the CPU, as arrays: what the ROF kernel and FlatZones read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..problem import Problem
from ..terms.smooth import LeastSquares
from ..terms.total_variation import TotalVariation
from .arrays import image_of, per_pixel


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
        image = image_of(x, tv.dims, tv.coupled)
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
