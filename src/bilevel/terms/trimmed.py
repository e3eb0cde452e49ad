"""Sparsity that spares the largest entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like
from .base import Proximable, Weighted
from .threshold import flat


@dataclass(frozen=True, eq=False)
class TrimmedL1(Weighted, Proximable):
    """g(x) = weight sum |x_i| over all entries of the event but the `count` largest ones.

    prox      the largest count entries stay, the others are soft-thresholded by step weight
    not convex, whatever the weight; at a tie of magnitudes the prox jumps

    A count between two integers spares one entry in part: g, and its prox, are continuous in the
    count, and have a derivative there.

    [1] Chen, Liu, Wang, Yin. Theoretical linear convergence of unfolded ISTA. NeurIPS, 2018 (the
        prox, as support selection). Yun et al. Trimming the l1 regularizer. ICML, 2019.
    """

    count: Tensor | float  # >= 0: one number, or one a sample, (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("weight", "count")

    def check(self, x: Tensor) -> None:
        for name in self.batched:
            shape = tuple(getattr(getattr(self, name), "shape", ()))
            if shape not in ((), (1,) * x.ndim, (len(x), *[1] * (x.ndim - 1))):
                raise ValueError(
                    f"TrimmedL1.{name} has shape {shape}: the entries are ranked by size, so it is "
                    f"one number, or one a sample, {(len(x), *[1] * (x.ndim - 1))}."
                )
        if bool((torch.as_tensor(self.count) < 0).any()):
            raise ValueError(f"TrimmedL1.count must be >= 0, got {self.count}.")

    def density(self, x: Tensor) -> Tensor:
        return self._part(x) * x.abs()

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight * self._part(x)
        return x - x.clamp(-t, t)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -torch.inf  # a concave kink

    def _part(self, x: Tensor) -> Tensor:  # of x's shape
        """How much of each entry counts: 0 of the largest `count` ones, 1 of the others."""
        order = flat(x.detach()).abs().argsort(dim=-1, descending=True)
        rank = torch.arange(order.shape[-1], dtype=x.dtype, device=x.device).expand_as(order)
        part = 1 - (like(self.count, x) - rank).clamp(0, 1)
        return torch.empty_like(part).scatter(-1, order, part).reshape(x.shape)
