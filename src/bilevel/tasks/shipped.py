"""The denoisers that come with the package: run folders without their history, in models/."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache

import numpy as np
from torch import nn

from bilevel.tasks import MODELS, data, runs
from bilevel.tasks.denoise import Denoise, noise_of
from bilevel.tasks.files import check_noise
from bilevel.tasks.images import Image
from bilevel.tasks.restorer import Restorer


@cache
def denoisers() -> dict[float, nn.Module]:
    """By the noise level of 255 that they have learned."""
    folders = sorted(path.parent for path in MODELS.glob("denoise*/config.toml"))
    loaded = (runs.load(folder) for folder in folders)
    return {data.Noise.parse(config["data"]["noise"]).low: model for model, config in loaded}


@dataclass(frozen=True)
class ShippedDenoiser(Restorer):
    """The filters of the nearest noise level, on the image scaled so that its noise is theirs."""

    noise: float | None  # of 255; None: estimated

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def __call__(self, image: Image) -> tuple[np.ndarray, str]:
        level, how = noise_of(image, self.noise)
        known = denoisers()
        nearest = min(known, key=lambda other: abs(math.log(other / level)))
        if not 0.5 <= nearest / level <= 2:
            warnings.warn(
                f"{image.path}: its noise of {level:.1f} is far from {nearest:g}, the nearest that "
                "the denoisers of the package have learned. Learn one with bilevel learn denoise.",
                stacklevel=2,
            )
        scale = nearest / level
        restored = Denoise().apply(known[nearest], scale * image.channels, nearest) / scale
        return restored, f" (noise {level:.1f}, {how}; filters learned at {nearest:g})"
