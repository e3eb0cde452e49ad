"""What the layers of total variation share: a learned weight, and the options of their solve."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..argmin import argmin
from ..differentiation.base import Strategy
from ..errors import OnFail
from ..problem import Problem
from ..solvers.base import Solver
from ..terms import Term, TotalVariation
from .logarithm import logarithm


class TVLayer(nn.Module):
    """argmin over x of data(x) + weight TV(x); data is the subclass's, the weight is learned."""

    asks: ClassVar[tuple[str, ...]] = ()  # what `forward` takes after the image

    def __init__(
        self,
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

    def solve(
        self,
        data: Problem | Term,
        weight: Tensor,
        x0: Tensor | None = None,
        default: Solver | None = None,  # the solver where none was given; None: by structure
    ) -> Tensor:
        return argmin(
            data + weight * TotalVariation(dims=self.dims, isotropic=self.isotropic),
            x0=x0,
            solver=default if self.solver is None else self.solver,
            diff=self.diff,
            tol=self.tol,
            on_fail=self.on_fail,
        )


class OneWeight(TVLayer):
    """A weight = exp(log_weight) for every image.

    `weight` is a number, or a tensor that broadcasts against the image: (C, 1, 1) is one weight a
    channel.
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
        super().__init__(dims, isotropic, solver, diff, tol, on_fail)
        self.log_weight = nn.Parameter(logarithm(self, "weight", weight))

    @property
    def weight(self) -> Tensor:
        return self.log_weight.exp()

    def weight_for(self, images: Tensor) -> Tensor:  # broadcasts against (B, C, *image)
        weight = self.weight.to(images.dtype)
        return weight[None] if weight.ndim else weight


class WeightOfNoise(TVLayer):
    """weight(sigma) = exp(offset + slope log sigma), both learnable, for any noise level.

    sigma is the noise's standard deviation in the image's units, one a sample.
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
        super().__init__(2, isotropic, solver, diff, tol, on_fail)
        self.offset = nn.Parameter(torch.tensor(float(offset)))
        self.slope = nn.Parameter(torch.tensor(float(slope)))

    def weight(self, sigma: Tensor) -> Tensor:  # (B,) -> (B,)
        return (self.offset + self.slope * sigma.log()).exp()

    def weight_for(self, images: Tensor, sigma: Tensor) -> Tensor:  # broadcasts against the images
        levels = (len(images),)
        if not isinstance(sigma, Tensor) or sigma.shape != levels or not bool((sigma > 0).all()):
            raise ValueError(
                f"{type(self).__name__} needs one noise level > 0 a sample, a tensor of shape "
                f"{levels}, got {sigma}. For the same level everywhere pass torch.full({levels}, "
                "level)."
            )
        return self.weight(sigma).to(images.dtype).reshape(-1, *[1] * (images.ndim - 1))
