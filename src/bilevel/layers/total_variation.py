"""Total-variation denoising as modules that own their weight."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from ..terms import LeastSquares
from .weights import OneWeight, WeightOfNoise


class TVDenoise(OneWeight):
    """argmin over x of 1/2 |x - noisy|^2 + weight TV(x), with a learnable weight = exp(log_weight).

    `weight` is a number, or a tensor that broadcasts against the image: (C, 1, 1) is one weight a
    channel. Shapes: (B, C, *image) -> the same, with dims image dims.
    """

    def forward(self, noisy: Tensor) -> Tensor:  # (B, C, *image) -> the same
        weight = self.weight_for(self.images(noisy))
        return self.solve(LeastSquares(noisy), weight)


class TVDenoiser(WeightOfNoise):
    """TV denoising for any noise level: weight(sigma) = exp(offset + slope log sigma), both
    learnable.

    sigma is the noise's standard deviation in the image's units, one a sample. A tuned weight grows
    a little faster than sigma; the defaults are near the best for photographs in [0, 1].
    """

    asks: ClassVar = ("sigma",)

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:  # (B, 1, H, W), (B,) -> (B, 1, H, W)
        weight = self.weight_for(self.images(noisy), sigma)
        return self.solve(LeastSquares(noisy), weight)
