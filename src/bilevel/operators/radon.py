"""Tomography: sums along parallel rays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Operator

_NUMBERS = 2**22  # that a piece of the computation may hold, all angles being more


@dataclass(frozen=True, eq=False)
class Radon(Operator):
    """(Rx)_{a,t} = the sum of x along the ray at angle a and offset t: square images (B, ..., N, N)
    -> sinograms (B, ..., angles, N).

    Angles, centre (pixel N // 2) and spacing are those of skimage.transform.radon with circle=True,
    whose result is transposed. A ray crosses every row, or every column, once, with linear
    interpolation between two pixels there (Joseph 1982); the adjoint is the transpose of just this
    matrix. Gradients in the angles, too. O(angles N^2) time, nothing stored.
    """

    angles: Tensor  # (angles,), in radians

    def __post_init__(self) -> None:
        a = self.angles
        if not isinstance(a, Tensor) or a.ndim != 1 or not len(a) or not a.is_floating_point():
            got = f"{a.dtype} {tuple(a.shape)}" if isinstance(a, Tensor) else type(a).__name__
            raise ValueError(f"Radon needs angles (angles,) in radians, floats, got {got}.")
        if not bool((a.detach().abs() <= 4 * torch.pi).all()):
            raise ValueError(
                f"Radon needs angles in radians, got some up to {float(a.detach().abs().max()):.6g}"
                ". Degrees become radians by torch.deg2rad(angles)."
            )

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim < 3 or x.shape[-1] != x.shape[-2]:
            raise ValueError(
                f"Radon needs x of shape (B, ..., N, N), square, got {tuple(x.shape)}. Pad it."
            )
        pixels = x.flatten(-2)
        pieces = [(pixels[..., place] * weight).sum(-1) for place, weight in self._rays(x)]
        return torch.cat(pieces, -2)

    def adjoint(self, y: Tensor) -> Tensor:
        if y.ndim < 3 or y.shape[-2] != len(self.angles):
            raise ValueError(
                f"Radon of {len(self.angles)} angles needs sinograms (B, ..., "
                f"{len(self.angles)}, N), got {tuple(y.shape)}. scikit-image's are y.mT."
            )
        n, begin = y.shape[-1], 0
        pixels = y.new_zeros(*y.shape[:-2], n * n)
        for place, weight in self._rays(y):
            piece = y[..., begin : begin + len(place), :, None] * weight
            pixels = pixels.index_add(-1, place.flatten(), piece.flatten(-3))
            begin += len(place)
        return pixels.unflatten(-1, (n, n))

    def _rays(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """(pixel, weight), each (angles, N rays, 2N pixels of a ray), some angles at a time."""
        n = like.shape[-1]
        images = max(1, like.shape[:-2].numel())
        for angles in self.angles.to(like).split(max(1, _NUMBERS // (images * n * n))):
            yield _rays(angles[:, None, None], n)

    def absolute(self) -> Radon:
        return self


def _rays(angles: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The ray at t meets row m (or column m where it runs more along the rows) at `crossing`."""
    offsets = torch.arange(n, dtype=angles.dtype, device=angles.device) - n // 2
    t, m = offsets[:, None], offsets
    cos, sin = angles.cos(), angles.sin()
    down = cos.abs() >= sin.abs()
    slope = torch.where(down, cos, sin)
    crossing = n // 2 + torch.where(down, t + m * sin, m * cos - t) / slope
    lower = crossing.detach().floor()
    along = (m + n // 2).long()
    places, weights = [], []
    for pixel, share in ((lower, lower + 1 - crossing), (lower + 1, crossing - lower)):
        across = pixel.clamp(0, n - 1).long()
        places.append(torch.where(down, n * along + across, n * across + along))
        weights.append(torch.where(pixel == across, share / slope.abs(), 0.0))
    return torch.cat(places, -1), torch.cat(weights, -1)
