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
from bilevel.tasks.images import Image, ImageError
from bilevel.tasks.restorer import Restorer


@cache
def denoisers() -> dict[float, nn.Module]:
    """By the noise level of 255 that they have learned."""
    folders = sorted(path.parent for path in MODELS.glob("denoise*/config.toml"))
    loaded = (runs.load(folder) for folder in folders)
    return {data.Noise.parse(config["data"]["noise"]).low: model for model, config in loaded}


def nearest(level: float) -> float:
    """The one of their noise levels that is the nearest."""
    return min(denoisers(), key=lambda known: abs(math.log(known / level)))


@dataclass(frozen=True)
class ShippedDenoiser(Restorer):
    """The filters of the nearest noise level, on the image scaled so that its noise is theirs."""

    noise: float | None  # of 255; None: estimated

    def __post_init__(self) -> None:
        check_noise(self.noise)

    def __call__(self, image: Image) -> tuple[np.ndarray, str]:
        level, how = noise_of(image, self.noise)
        learned = nearest(level)
        least = denoisers()[learned].basis.shape[-1]  # type: ignore[index]
        if min(image.channels.shape[1:]) < least:
            raise ImageError(
                f"{image.path} has less than the {least} x {least} pixels of a filter. Pass a "
                "--weight of total variation, 0.1 say."
            )
        if not 0.5 <= learned / level <= 2:
            warnings.warn(
                f"{image.path}: its noise of {level:.1f} is far from {learned:g}, the nearest that "
                "the denoisers of the package have learned. Learn one with bilevel learn denoise.",
                stacklevel=2,
            )
        scale = learned / level
        restored = Denoise().apply(denoisers()[learned], scale * image.channels, learned) / scale
        return restored, f" (noise {level:.1f}, {how}; filters learned at {learned:g})"
