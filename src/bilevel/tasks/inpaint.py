"""Inpainting: pixels that are missing, filled in from those around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bilevel import Box, LeastSquares, Mask, TotalVariation, solve
from bilevel.tasks import images, sweep
from bilevel.tasks.images import Image, ImageError
from bilevel.tasks.restorer import ByWeight, Restorer
from bilevel.terms.composition import Composition

TOL = 1e-3  # relative duality gap
SHOWN = 256  # side of the picture that a report shows with several weights
BLACK = 0.1  # what a JPEG leaves on black is less; the soft edge of a brush is more
FREE = 1.0  # the weight of TV where nothing is traded with it: any, it sets the scale of the dual


def inpaint(pixels: Tensor, missing: Tensor, weight: float | None) -> Tensor:
    """(B, ..., H, W), missing (H, W) or of that shape, bool -> the same.

    weight None   argmin TV(x) with x as given where it is known
    else          argmin 1/2 |x - given|^2 over the known + weight TV(x)

    Missing pixels stay between the least and the largest known value, which a minimiser does
    anyway; with the bounds there is a duality gap.
    """
    missing = missing.expand_as(pixels)
    shape = (-1, *[1] * (pixels.ndim - 1))
    low = pixels.masked_fill(missing, torch.inf).flatten(1).amin(1).reshape(shape)
    high = pixels.masked_fill(missing, -torch.inf).flatten(1).amax(1).reshape(shape)
    start = torch.where(missing, (low + high) / 2, pixels)
    if weight is None:
        known = Box(torch.where(missing, low, pixels), torch.where(missing, high, pixels))
        return solve(known + FREE * TotalVariation(), x0=start, tol=TOL, on_fail="warn").x
    data = Composition(LeastSquares(start * ~missing), Mask((~missing).to(pixels)))
    energy = data + Box(low, high) + weight * TotalVariation()
    return solve(energy, x0=start, tol=TOL, on_fail="warn").x


@dataclass(frozen=True, eq=False)
class Inpainter(Restorer):
    """A mask, and how to fill: `inpaint` on images."""

    missing: np.ndarray  # (H, W) bool
    path: Path
    weight: float | None

    @classmethod
    def of(cls, mask: Path, weight: float | None) -> Inpainter:
        """Black is known, all else is missing, as in OpenCV; a tenth of white still is black."""
        missing = images.read(mask).gray() >= BLACK
        if not missing.any():
            raise ImageError(
                f"The mask {mask} is black everywhere: nothing is missing. Paint white what is to "
                "be filled in."
            )
        if missing.all():
            raise ImageError(
                f"The mask {mask} is white everywhere: nothing is known. White means missing: is "
                "it the other way round?"
            )
        return cls(missing, mask, weight)

    def __call__(self, image: Image) -> tuple[np.ndarray, str]:  # (C, H, W) and what to tell
        size = image.pixels.shape[:2]
        if size != self.missing.shape:
            raise ImageError(
                f"The mask {self.path} has the size {self.missing.shape}, the image {image.path} "
                f"{size}. Give a mask of the image's size, rows x columns."
            )
        filled = _inpainted(image.channels, self.missing, self.weight)
        return filled, f" ({self.missing.mean():.1%} filled in)"

    def known(self) -> dict[str, np.ndarray]:
        return {"what was missing": self.missing.astype(float)}

    def by_weight(self, image: Image) -> ByWeight | None:
        given, missing = (sweep.middle(a, SHOWN) for a in (image.gray(), self.missing))
        if self.weight is None or missing.all():
            return None
        return sweep.by_weight(
            given, self.weight, lambda weight: _inpainted(given[None], missing, weight)[0]
        )


def _inpainted(channels: np.ndarray, missing: np.ndarray, weight: float | None) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(channels))[:, None]
    return inpaint(pixels, torch.from_numpy(missing), weight)[:, 0].numpy()
