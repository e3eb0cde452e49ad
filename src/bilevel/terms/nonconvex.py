"""Penalties that count, or grow flat: less biased than norms, and not convex.

Each prox is a global minimiser for every step. A weakly convex term declares how far it is from
convex by a negative `strong_convexity` mu: its prox is continuous for steps below 1 / -mu, which
solvers ask for. Solutions are stationary points, and depend on the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, largest, like, smallest
from .base import Proximable, Weighted


@dataclass(frozen=True, eq=False)
class L0(Weighted, Proximable):
    """g(x) = sum of weight where x_i != 0: the number of nonzeros. Nowhere near convex.

    prox  hard threshold: x_i where |x_i| > sqrt(2 step weight), else 0 (Blumensath, Davies 2008)
    the derivative returned at the jump is 0; an argmin has none where a coordinate is at the jump
    """

    def density(self, x: Tensor) -> Tensor:
        return (x != 0).to(x.dtype)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        return torch.where(x.square() <= 2 * s, 0.0, x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -torch.inf


@dataclass(frozen=True, eq=False)
class TruncatedQuadratic(Weighted, Proximable):
    """g(x) = weight sum min(x_i^2 / 2, height): quadratic up to a jump, then flat; on differences
    the relaxed Mumford-Shah functional.

    prox  x / (1 + s) where x^2 <= 2 height (1 + s), else x, with s = step weight

    [1] Strekalovskiy, Cremers. Real-time minimization of the piecewise smooth Mumford-Shah
        functional. ECCV, 2014.
    """

    height: Tensor | float  # > 0

    batched: ClassVar[tuple[str, ...]] = ("weight", "height")

    def density(self, x: Tensor) -> Tensor:
        return _at_most(x.square() / 2, self.height)

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        return torch.where(x.square() <= 2 * self.height * (1 + s), x / (1 + s), x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -torch.inf  # a concave kink


@dataclass(frozen=True, eq=False)
class MCP(Weighted, Proximable):
    """g(x) = weight sum p(|x_i|), p(t) = threshold t - t^2 / (2 width) up to t = width threshold,
    then flat: the minimax concave penalty.

    prox  firm threshold, t = |x|, s = step weight < width: 0 up to s threshold, then (t - s
          threshold) / (1 - s / width), and x itself from width threshold on
    mu    -weight / width

    The quadratic envelope of height sum (x_i != 0) is MCP(sqrt(2 height), 1).

    [1] Zhang. Nearly unbiased variable selection under minimax concave penalty. AoS, 2010.
    """

    threshold: Tensor | float  # >= 0: the slope at 0
    width: Tensor | float = 3.0  # > 0: flat from width * threshold on

    batched: ClassVar[tuple[str, ...]] = ("weight", "threshold", "width")

    def density(self, x: Tensor) -> Tensor:
        end = self.width * self.threshold
        t = _at_most(x.abs(), end)
        return t * (self.threshold - t / (2 * self.width))

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s, t = like(expand(step, x) * self.weight, x), x.abs()
        k, width = self.threshold, like(self.width, x)
        continuous = s < width
        ratio = 1 - torch.where(continuous, s / width, 0.0)
        firm = (t - s * k).clamp(min=0) / ratio
        small = torch.where(continuous, t < width * k, t <= (s * width).sqrt() * k)
        return torch.where(small, torch.where(continuous, firm, 0.0) * x.sign(), x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -largest(self.weight, x) / smallest(self.width, x)


@dataclass(frozen=True, eq=False)
class SCAD(Weighted, Proximable):
    """g(x) = weight sum p(|x_i|), p' = threshold up to t = threshold, falling to 0 at t = width
    threshold, then flat: smoothly clipped absolute deviation.

    prox  t = |x|, a = width, k = threshold, s = step weight < a - 1: soft threshold by s k up to
          t = (1 + s) k, then ((a - 1) t - s a k) / (a - 1 - s), and x itself from a k on
    mu    -weight / (width - 1)

    [1] Fan, Li. Variable selection via nonconcave penalized likelihood. JASA, 2001.
    """

    threshold: Tensor | float  # >= 0: the slope at 0
    width: Tensor | float = 3.7  # > 1: flat from width * threshold on

    batched: ClassVar[tuple[str, ...]] = ("weight", "threshold", "width")

    def check(self, x: Tensor) -> None:
        least = float(torch.as_tensor(self.width).detach().min())
        if least <= 1:
            raise ValueError(
                f"SCAD.width = {least:.6g}: it must be > 1, the penalty is flat only from width * "
                "threshold on. The usual width is 3.7."
            )

    def density(self, x: Tensor) -> Tensor:
        t, k, a = x.abs(), self.threshold, self.width
        linear = _at_most(t, k)
        bent = _at_most(t, a * k) - linear  # how far into the falling slope
        return k * linear + k * bent - bent.square() / (2 * (a - 1))

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s, t = like(expand(step, x) * self.weight, x), x.abs()
        k, a = self.threshold, self.width
        continuous = s < a - 1
        soft = (t - s * k).clamp(min=0)
        bent = k + (t - (1 + s) * k) * ((a - 1) / torch.where(continuous, a - 1 - s, 1.0))
        jump = k * torch.where(s < a + 1, (a + 1 + s) / 2, (s * (a + 1)).sqrt())
        flat = torch.where(continuous, t >= a * k, t > jump)
        low = torch.where(continuous & (t > (1 + s) * k), bent, soft)
        return torch.where(flat, x, low * x.sign())

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -largest(self.weight, x) / (smallest(self.width, x) - 1)


def _at_most(t: Tensor, bound: Scalar) -> Tensor:
    return t.clamp(max=like(bound, t))
