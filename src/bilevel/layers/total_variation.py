"""Total-variation denoising as modules that own their weight."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..argmin import argmin
from ..differentiation.base import Strategy
from ..errors import OnFail
from ..solvers.base import Solver
from ..terms import LeastSquares, TotalVariation


class _Denoiser(nn.Module):
    """argmin over x of 1/2 |x - noisy|^2 + weight TV(x); what is common to the modules below."""

    def __init__(
        self,
        *,
        dims: int,
        isotropic: bool,
        solver: Solver | None,
        diff: Strategy | None,
        tol: float | None,
        on_fail: OnFail,
    ) -> None:
        super().__init__()
        self.dims, self.isotropic = dims, isotropic
        self.solver, self.diff, self.tol = solver, diff, tol
        self.on_fail: OnFail = on_fail

    def images(self, noisy: Tensor) -> Tensor:
        if not isinstance(noisy, Tensor) or noisy.ndim <= self.dims:
            got = tuple(noisy.shape) if isinstance(noisy, Tensor) else type(noisy).__name__
            raise ValueError(
                f"{type(self).__name__} needs a tensor (B, C, *image) with {self.dims} image dims, "
                f"got {got}. For one image pass image[None, None]."
            )
        return noisy

    def denoise(self, noisy: Tensor, weight: Tensor) -> Tensor:
        term = TotalVariation(dims=self.dims, isotropic=self.isotropic)
        return argmin(
            LeastSquares(noisy) + weight * term,
            solver=self.solver,
            diff=self.diff,
            tol=self.tol,
            on_fail=self.on_fail,
        )


class TVDenoise(_Denoiser):
    """argmin over x of 1/2 |x - noisy|^2 + weight TV(x), with a learnable weight = exp(log_weight).

    `weight` is a number, or a tensor that broadcasts against the image: (C, 1, 1) is one weight a
    channel. Shapes: (B, C, *image) -> the same, with dims image dims.
    """

    def __init__(
        self,
        weight: float | Tensor = 0.1,  # > 0, in the image's units
        *,
        dims: int = 2,
        isotropic: bool = True,
        solver: Solver | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__(
            dims=dims, isotropic=isotropic, solver=solver, diff=diff, tol=tol, on_fail=on_fail
        )
        weight = torch.as_tensor(weight, dtype=torch.get_default_dtype())
        if not bool((weight > 0).all()) or not bool(weight.isfinite().all()):
            raise ValueError(
                f"TVDenoise needs a positive, finite weight to start from, got {weight}."
            )
        self.log_weight = nn.Parameter(weight.log())

    @property
    def weight(self) -> Tensor:
        return self.log_weight.exp()

    def forward(self, noisy: Tensor) -> Tensor:  # (B, C, *image) -> the same
        weight = self.weight.to(self.images(noisy).dtype)
        return self.denoise(noisy, weight[None] if weight.ndim else weight)


class TVDenoiser(_Denoiser):
    """TV denoising for any noise level: weight(sigma) = exp(offset + slope log sigma), both
    learnable.

    sigma is the noise's standard deviation in the image's units, one a sample. A tuned weight grows
    a little faster than sigma; the defaults are near the best for photographs in [0, 1].
    """

    def __init__(
        self,
        offset: float = math.log(1.1),
        slope: float = 1.1,
        *,
        isotropic: bool = True,
        solver: Solver | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__(
            dims=2, isotropic=isotropic, solver=solver, diff=diff, tol=tol, on_fail=on_fail
        )
        self.offset = nn.Parameter(torch.tensor(float(offset)))
        self.slope = nn.Parameter(torch.tensor(float(slope)))

    def weight(self, sigma: Tensor) -> Tensor:  # (B,) -> (B,)
        return (self.offset + self.slope * sigma.log()).exp()

    def forward(self, noisy: Tensor, sigma: Tensor) -> Tensor:  # (B, 1, H, W), (B,) -> (B, 1, H, W)
        levels = (len(self.images(noisy)),)
        if not isinstance(sigma, Tensor) or sigma.shape != levels or not bool((sigma > 0).all()):
            raise ValueError(
                f"TVDenoiser needs one noise level > 0 a sample, a tensor of shape {levels}, got "
                f"{sigma}. For the same level everywhere pass torch.full({levels}, level)."
            )
        weight = self.weight(sigma).to(noisy.dtype)
        return self.denoise(noisy, weight.reshape(-1, *[1] * (noisy.ndim - 1)))
