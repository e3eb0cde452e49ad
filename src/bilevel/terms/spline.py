"""Even functions whose derivative is piecewise linear: any penalty, with learnable numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, largest, like
from .base import Smooth, Weighted


@dataclass(frozen=True, eq=False)
class Spline(Weighted, Smooth):
    """f(x) = weight sum rho(x_i), rho even, rho(0) = rho'(0) = 0, and rho'' = slopes[j] where
    j spacing < |x_i| < (j + 1) spacing, 0 beyond the last piece.

    slopes (..., pieces), all but the last dim broadcast against x: (K, 1, 1, pieces) is one rho
    for each of K channels. Convex where no slope is negative; else weakly convex.

    grad   weight sign(x) sum_j slopes[j] clip(|x| - j spacing, 0, spacing)
    L, mu  weight times the largest |slope|, and times the least slope or 0

    Cost: one pass over x a piece.

    [1] Goujon, Neumayer, Bohra, Ducotterd, Unser. A neural-network-based convex regularizer for
        inverse problems. IEEE TCI, 2023.
    """

    slopes: Tensor
    spacing: float

    def check(self, x: Tensor) -> None:
        shape = tuple(self.slopes.shape)
        try:
            fits = torch.broadcast_shapes(shape[:-1], x.shape) == x.shape and shape[-1] > 0
        except (RuntimeError, IndexError):
            fits = False
        if not fits or not self.spacing > 0:
            raise ValueError(
                "Spline needs slopes (..., pieces), all dims but the last broadcasting against x "
                f"{tuple(x.shape)}, and a spacing > 0; got {shape} and {self.spacing}. For one "
                "function a channel of images: (channels, 1, 1, pieces)."
            )

    def density(self, x: Tensor) -> Tensor:
        t, h = x.abs(), self.spacing
        total = torch.zeros_like(x)
        for j, slope in enumerate(self.slopes.unbind(-1)):
            inside = (t - j * h).clamp(0, h)
            total = total + slope * (inside.square() / 2 + h * (t - (j + 1) * h).clamp(min=0))
        return total

    def grad(self, x: Tensor) -> Tensor:
        t, h = x.abs(), self.spacing
        total = torch.zeros_like(x)
        for j, slope in enumerate(self.slopes.unbind(-1)):
            total = total + slope * (t - j * h).clamp(0, h)
        return self.weight * x.sign() * total

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * self.slopes.detach().abs().max().to(x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * like(self.slopes.detach().min(), x).clamp(max=0)
