"""Denoising: an image, seen with noise."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from bilevel.differentiation import CG, BiCGStab, FixedPoint, Implicit
from bilevel.layers import FilterDenoise, FirmPotential, TVDenoise, TVDenoiser
from bilevel.tasks.images import Image, ImageError
from bilevel.tasks.task import Method, Task

TOL = 1e-4  # relative duality gap: PSNR right to 0.001 dB
DIFF = FixedPoint(
    BiCGStab(tol=1e-2), order=1
)  # two digits of the gradient find the weight to 0.1 %


@dataclass(frozen=True)
class Denoise(Task):
    """The image itself."""

    name, maker, done = "denoise", "denoiser", "denoised"
    shown = 256

    def at(self, number: int) -> Denoise:
        return self

    @property
    def margin(self) -> tuple[int, int]:
        return 0, 0

    def see(self, clean: np.ndarray) -> np.ndarray:
        return clean

    def target(self, clean: np.ndarray) -> np.ndarray:
        return clean

    def told(self) -> dict[str, Tensor]:
        return {}

    def config(self) -> dict[str, Any]:
        return {}

    def model(self, per_noise: bool, weight: float | None = None) -> nn.Module:
        options: dict[str, Any] = {"tol": TOL, "diff": DIFF, "on_fail": "warn"}
        if per_noise:
            return TVDenoiser(**options).double()
        return TVDenoise(0.1 if weight is None else weight, **options).double()

    def filters(self) -> nn.Module:
        diff = Implicit(CG(tol=1e-2), order=1)
        potential = FirmPotential(48, delta=0.002)  # tol: of a step, right to 0.002 dB
        return FilterDenoise(potential=potential, tol=1e-2, diff=diff, on_fail="warn")

    def usual_weight(self, level: float) -> float:
        return level / 255

    def classical(self) -> dict[str, Method]:
        return {"non-local means": non_local_means, "wavelets": wavelets}


def estimate_noise(image: Image) -> float:
    """The noise level of 255, from the finest wavelets (Donoho, Johnstone 1994); 0 if none."""
    from skimage.restoration import estimate_sigma

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an image without any detail
        sigma = np.mean([estimate_sigma(channel) for channel in image.channels])
    return 255 * float(np.nan_to_num(sigma))


def noise_of(image: Image, given: float | None) -> tuple[float, str]:
    """Its level of 255, and whether it was given or estimated."""
    level = estimate_noise(image) if given is None else given
    if level < 0.1:
        if given is not None:
            raise ImageError(
                f"{image.path}: a noise of {given:g} of 255 is none to speak of. Give 0.1 or more."
            )
        raise ImageError(f"{image.path}: no noise was found in it. Name its level with --noise.")
    return level, "estimated" if given is None else "given"


# --------------------------------------------------------------------------- classical methods


def non_local_means(channels: np.ndarray, level: float) -> np.ndarray:
    """Buades, Coll, Morel (2005), told the noise level; colours decide together what is alike."""
    from skimage.restoration import denoise_nl_means

    sigma, gray = level / 255, len(channels) == 1
    result = denoise_nl_means(
        channels[0] if gray else channels,
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma,  # as scikit-image advises for its fast mode
        sigma=sigma,
        fast_mode=True,
        channel_axis=None if gray else 0,
    )
    return result.reshape(channels.shape)


def wavelets(channels: np.ndarray, level: float) -> np.ndarray:
    """BayesShrink (Chang, Yu, Vetterli 2000), averaged over 16 shifts (Coifman, Donoho 1995)."""
    from skimage.restoration import denoise_wavelet

    def shifted(channel: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        moved = np.roll(channel, shift, (0, 1))
        clean = denoise_wavelet(
            moved, sigma=level / 255, method="BayesShrink", mode="soft", rescale_sigma=False
        )
        return np.roll(clean, (-shift[0], -shift[1]), (0, 1))

    shifts = [(i, j) for i in range(4) for j in range(4)]
    return np.stack([np.mean([shifted(c, s) for s in shifts], axis=0) for c in channels])
