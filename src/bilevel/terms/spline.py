"""Even functions whose derivative is piecewise linear: any penalty, with learnable numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, largest, like
from .base import Proximable, Smooth, Weighted


@dataclass(frozen=True, eq=False)
class Spline(Weighted, Smooth, Proximable):
    """f(x) = weight sum rho(x_i), rho even, rho(0) = rho'(0) = 0, and rho'' = slopes[j] on the j-th
    of the pieces that |x_i| passes, which is widths[j] wide; 0 beyond the last.

    slopes and widths (..., pieces); all but the last dim broadcast against x: (K, 1, 1, pieces) is
    one rho for each of K channels. Convex where no slope is negative; else weakly convex.

    grad   weight sign(x) sum_j slopes[j] clip(|x| - knot[j], 0, widths[j])
    prox   its inverse at step: each piece 1 + s slopes[j] times as wide, s = step weight; for
           s < 1 / -min(slopes)
    L, mu  weight times the largest |slope|, and times the least slope or 0

    Cost: some passes over x a piece.

    [1] Goujon, Neumayer, Bohra, Ducotterd, Unser. A neural-network-based convex regularizer for
        inverse problems. IEEE TCI, 2023.
    """

    slopes: Tensor
    widths: Tensor  # > 0

    def check(self, x: Tensor) -> None:
        slopes, widths = tuple(self.slopes.shape), tuple(self.widths.shape)
        pieces = slopes[-1:] == widths[-1:] and slopes[-1:] not in ((), (0,))
        try:
            fits = torch.broadcast_shapes(slopes[:-1], widths[:-1], x.shape) == x.shape
        except RuntimeError:
            fits = False
        if not (pieces and fits and bool((self.widths > 0).all())):
            raise ValueError(
                "Spline needs slopes and widths > 0 of shape (..., pieces), all dims but the last "
                f"broadcasting against x {tuple(x.shape)}; got {slopes} and {widths}. For one "
                "function a channel of images: (channels, 1, 1, pieces)."
            )

    def _pieces(self) -> Iterator[tuple[Tensor, Tensor]]:
        return zip(self.slopes.unbind(-1), self.widths.unbind(-1), strict=True)

    def density(self, x: Tensor) -> Tensor:
        left, slope_here, total = x.abs(), torch.zeros_like(x), torch.zeros_like(x)
        for slope, width in self._pieces():
            inside = torch.minimum(left, width)
            total = total + inside * (slope_here + slope * inside / 2)
            slope_here, left = slope_here + slope * inside, left - inside
        return total + slope_here * left

    def grad(self, x: Tensor) -> Tensor:
        left, total = x.abs(), torch.zeros_like(x)
        for slope, width in self._pieces():
            inside = torch.minimum(left, width)
            total, left = total + slope * inside, left - inside
        return self.weight * x.sign() * total

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s, left, u = expand(step, x) * self.weight, x.abs(), torch.zeros_like(x)
        for slope, width in self._pieces():
            stretch = 1 + s * slope
            if not bool((torch.as_tensor(stretch) > 0).all()):
                raise ValueError(
                    "the prox of a Spline that is not convex needs step * weight < 1 / -slope for "
                    f"every slope; the least slope is {float(self.slopes.min()):.6g}."
                )
            inside = torch.minimum(left / stretch, width)
            u, left = u + inside, left - stretch * inside
        return x.sign() * (u + left)

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * self.slopes.detach().abs().max().to(x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * like(self.slopes.detach().min(), x).clamp(max=0)
