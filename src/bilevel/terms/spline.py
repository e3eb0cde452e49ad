"""Even functions whose derivative is piecewise linear: any penalty, with learnable numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

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

    grad   weight sum_j (slopes[j] - slopes[j + 1]) clip(x, -knot[j], knot[j])
    prox   the inverse of 1 + s rho', s = step weight: pieces 1 + s slopes[j] times as wide, with
           slopes 1 / (1 + s slopes[j]), then 1; for s < 1 / -min(slopes)
    prox_conjugate, at sigma   pieces sigma + w slopes[j] times as wide, w the weight, with slopes
           w slopes[j] / (sigma + w slopes[j]), then 0; for sigma > w (-min(slopes))
    L, mu  weight times the largest |slope|, and times the least slope or 0

    Cost: two passes over x a piece.

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

    def density(self, x: Tensor) -> Tensor:
        parts = _ramps(x, self.slopes.unbind(-1), self.widths.unbind(-1))
        return sum((share * ramp * (x - ramp / 2) for share, ramp in parts), torch.zeros_like(x))

    def grad(self, x: Tensor) -> Tensor:
        slopes = [self.weight * slope for slope in self.slopes.unbind(-1)]
        return _odd(x, slopes, self.widths.unbind(-1))

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        stretch = self._stretch(1.0, expand(step, x))
        widths = self._stretched(stretch)
        end = sum(widths, torch.zeros_like(widths[0]))
        return (x - x.clamp(-end, end)) + _odd(x, [1 / t for t in stretch], widths)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        stretch = self._stretch(expand(step, y), 1.0)
        slopes = self.slopes.unbind(-1)
        shares = [self.weight * slope / t for slope, t in zip(slopes, stretch, strict=True)]
        return _odd(y, shares, self._stretched(stretch))

    def _stretch(self, own: Scalar, step: Scalar) -> list[Tensor]:
        """own + step weight slopes[j], each > 0."""
        stretch = [own + step * self.weight * slope for slope in self.slopes.unbind(-1)]
        if not all(bool((t > 0).all()) for t in stretch):
            raise ValueError(
                "the prox of a Spline that is not convex needs step * weight < 1 / -slope for "
                f"every slope; the least slope is {float(self.slopes.min()):.6g}."
            )
        return stretch

    def _stretched(self, stretch: Sequence[Tensor]) -> list[Tensor]:
        return [t * width for t, width in zip(stretch, self.widths.unbind(-1), strict=True)]

    def lipschitz(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * self.slopes.detach().abs().max().to(x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return largest(self.weight, x) * like(self.slopes.detach().min(), x).clamp(max=0)


def _ramps(
    x: Tensor, slopes: Sequence[Tensor], widths: Sequence[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(slopes[j] - slopes[j + 1], x clipped to [-knot j, knot j]), 0 the slope after the last."""
    for slope, after, knot in zip(slopes, (*slopes[1:], 0.0), accumulate(widths), strict=True):
        yield slope - after, x.clamp(-knot, knot)


def _odd(x: Tensor, slopes: Sequence[Tensor], widths: Sequence[Tensor]) -> Tensor:
    """The odd, continuous function with these slopes on the pieces, constant after them."""
    total = torch.zeros_like(x)
    for share, ramp in _ramps(x, slopes, widths):
        total = torch.addcmul(total, share, ramp)
    return total
