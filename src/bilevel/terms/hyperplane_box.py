"""A box cut by a hyperplane: capped simplices, transport along a line, margins with a bias."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps
from .affine import inner_product, rounding
from .base import Dualizable, Proximable
from .sets import _between, _indicator
from .threshold import flat


@dataclass(frozen=True, eq=False)
class HyperplaneBox(Proximable, Dualizable):
    """g(x) = 0 if lower <= x <= upper and <normal, x> = offset, else inf.

    prox       clip(x - t normal, lower, upper), t the root of a piecewise linear function that
               falls: its pieces are sorted and halved, O(n log n); no tolerance
    conjugate  the least over t of t offset + sum max(lower (y - t normal), upper (y - t normal)),
               attained where a coordinate of y - t normal changes its sign
    at a kink (an entry that just reaches its bound) the derivative is one of the two sides'
    Pardalos, Kovoor. An algorithm for a singly constrained class of quadratic programs subject to
    upper and lower bounds. Math. Programming, 1990.
    """

    normal: Tensor  # of the event's shape, or of x's: another one in each sample
    offset: Tensor | float  # a number, or (B, 1, ..., 1)
    lower: Tensor | float = 0.0  # broadcasts against x; may be -inf
    upper: Tensor | float = torch.inf  # broadcasts against x; may be inf

    batched: ClassVar[tuple[str, ...]] = ("normal", "offset", "lower", "upper")

    def value(self, x: Tensor) -> Tensor:
        off = (inner_product(self.normal, x) - self.offset).abs()
        flat_enough = off <= rounding(self.normal, x, self.offset)
        return _indicator((x >= self.lower) & (x <= self.upper) & flat_enough, x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        if not x.numel():
            return x
        v, (a, lower, upper) = flat(x), self._lines(x)
        with torch.no_grad():  # only which coordinates are free is found here
            ends = torch.stack([(v - lower) / a, (v - upper) / a])  # where a coordinate is free
            ends = torch.where(a == 0, torch.inf, ends)
            breaks = torch.cat([*ends], -1).sort(dim=-1).values
            number = _first(
                breaks, lambda t: self._height(a * _between(lower, v - t * a, upper)) < 0
            )
            walls = torch.nn.functional.pad(breaks, (1, 1), value=torch.inf)
            walls[..., 0] = -torch.inf
            below, above = walls.gather(-1, number), walls.gather(-1, number + 1)
            free = (ends.amin(0) <= below) & (ends.amax(0) >= above) & (a != 0)
            t = _inside(below, above)
        for _ in range(2):  # the second time from close by, where little is lost by rounding
            v = v - t * a
            rest = self._height(torch.where(free, a * v, a * _between(lower, v, upper)))
            square = torch.where(free, a * a, 0.0).sum(-1, keepdim=True)
            t = torch.where(square > 0, rest / torch.where(square > 0, square, 1.0), 0.0)
            t, recorded = t.detach(), t
        return _between(lower, v - recorded * a, upper).reshape(x.shape)

    def conjugate(self, y: Tensor) -> Tensor:
        if not y.numel():
            return y.flatten(1).sum(1)
        v, (a, lower, upper) = flat(y), self._lines(y)
        turns = torch.where(a == 0, torch.inf, v / a).detach()

        def slope_after(t: Tensor) -> Tensor:  # the maximiser of <., y - t normal> meets the plane
            maximiser = torch.where((t < turns) == (a > 0), upper, lower)
            return self._height(torch.where(a == 0, 0.0, a * maximiser))

        breaks = turns.sort(dim=-1).values
        number = _first(breaks, lambda t: slope_after(t) <= 0)
        t = breaks.gather(-1, number.clamp(max=breaks.shape[-1] - 1))
        rest = v - t * a
        ends = torch.where(rest > 0, upper, lower)
        zero = (rest.abs() <= 64 * eps(y) * v.abs().amax(-1, keepdim=True)) & ends.isinf()
        value = (rest * torch.where(zero, 0.0, ends)).sum(-1, keepdim=True)
        return (value + t * self.offset).flatten(1).sum(1)

    def _lines(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """normal, lower and upper, for each coordinate of flat(x)."""
        fields = (self.normal, self.lower, self.upper)
        full = (torch.as_tensor(f, dtype=x.dtype, device=x.device).expand_as(x) for f in fields)
        a, lower, upper = (flat(f) for f in full)
        return a, lower, upper

    def _height(self, products: Tensor) -> Tensor:  # (B, 1, ..., 1)
        return products.sum(-1, keepdim=True) - self.offset


def _first(points: Tensor, holds: Callable[[Tensor], Tensor]) -> Tensor:  # (B, 1, ..., 1)
    """The number of points, in rising order along the last dim, before `holds`; it holds at inf and
    not at -inf. By halving."""
    low = torch.zeros_like(points[..., :1], dtype=torch.long)
    high = low + points.shape[-1]
    for _ in range(points.shape[-1].bit_length()):
        middle = (low + high) // 2
        t = points.gather(-1, middle.clamp(max=points.shape[-1] - 1))
        true = torch.where(t.isfinite(), holds(torch.where(t.isfinite(), t, 0.0)), t > 0)
        open_ = low < high
        high = torch.where(true & open_, middle, high)
        low = torch.where(~true & open_, middle + 1, low)
    return low


def _inside(below: Tensor, above: Tensor) -> Tensor:
    """A finite number between two that may be infinite."""
    low = torch.where(below.isfinite(), below, above - 1 - above.abs())
    high = torch.where(above.isfinite(), above, below + 1 + below.abs())
    return ((low + high) / 2).nan_to_num(0.0, 0.0, 0.0)
