"""Total-variation denoising as modules that own their weight."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn

from ..differentiation.base import Strategy
from ..errors import OnFail
from ..solvers.base import Solver
from ..terms import LeastSquares
from .weights import OneWeight, TVLayer, WeightOfNoise


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


class PredictedTVDenoise(TVLayer):
    """argmin over x of 1/2 |x - noisy|^2 + weight TV(x), weight = exp(predictor(noisy)), one a
    sample: a network looks at the image and says how much to smooth it.

    predictor: (B, C, *image) -> (B,), learned alone from known weights, or with the solve, as every
    loss of the result has its gradient there. Shapes: (B, C, *image) -> the same.
    """

    def __init__(
        self,
        predictor: nn.Module,
        *,
        dims: int = 2,
        isotropic: bool = True,
        solver: Solver | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__(dims, isotropic, solver, diff, tol, on_fail)
        self.predictor = predictor

    def weight_for(self, images: Tensor) -> Tensor:  # (B, 1, ..., 1)
        logs = self.predictor(images)
        if not isinstance(logs, Tensor) or logs.shape != images.shape[:1]:
            got = tuple(logs.shape) if isinstance(logs, Tensor) else type(logs).__name__
            raise ValueError(
                f"the predictor of PredictedTVDenoise must return the logarithm of one weight a "
                f"sample, a tensor of shape ({len(images)},), got {got}."
            )
        weight = logs.to(images).exp()  # autocast may have rounded the logarithm
        return weight.reshape(-1, *[1] * (images.ndim - 1))

    def forward(self, noisy: Tensor) -> Tensor:  # (B, C, *image) -> the same
        weight = self.weight_for(self.images(noisy))
        return self.solve(LeastSquares(noisy), weight)
