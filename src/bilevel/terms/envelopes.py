"""The Moreau envelope: a term made smooth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, larger, largest, like, smallest, sum_event
from .base import Proximable, Smooth, Weighted


@dataclass(frozen=True, eq=False)
class MoreauEnvelope(Weighted, Smooth, Proximable):
    """f(x) = weight min_u term(u) + |u - x|^2 / (2 smoothing): the term, smooth, with the same
    minimisers. Of L1 it is Huber; of L2 Huber's function of the norm; of a set half the squared
    distance.

    grad  weight (x - p) / smoothing, p = prox of the term with step smoothing: by Moreau weight
          times the prox of its conjugate at x / smoothing
    L     weight / smoothing
    prox  x + s / (s + smoothing) (prox of the term with step s + smoothing - x), s = step weight

    [1] Moreau. Proximite et dualite dans un espace hilbertien. Bull. SMF, 1965.
    """

    term: Proximable
    smoothing: Tensor | float  # > 0: a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("weight", "smoothing")

    def __post_init__(self) -> None:
        if not isinstance(self.term, Proximable):
            raise TypeError(
                f"MoreauEnvelope needs a term with a prox, got {type(self.term).__name__}. Of a "
                "composed term h(Kx) take the envelope of h: MoreauEnvelope(h, smoothing) @ K."
            )

    def check(self, x: Tensor) -> None:
        mu = torch.as_tensor(self.term.strong_convexity(x)).min()
        smoothing = torch.as_tensor(self.smoothing).detach().max()
        if float(1 + smoothing.to(mu) * mu) <= 0:
            raise ValueError(
                f"MoreauEnvelope of {type(self.term).__name__} is smooth for a smoothing below "
                f"{-1 / float(mu):.3g}, 1 over its weak convexity, got {float(smoothing):.3g}."
            )

    def _prox(self, x: Tensor, step: Tensor | float) -> Tensor:
        return self.term.prox(x, _per_sample(step))

    def density(self, x: Tensor) -> Tensor:
        p = self._prox(x, self.smoothing)
        near = sum_event((x - p).square() / (2 * self.smoothing))
        return (self.term.value(p) + near).reshape(-1, *[1] * (x.ndim - 1))

    def grad(self, x: Tensor) -> Tensor:
        rate = 1 / _per_sample(self.smoothing)
        return self.weight * self.term.prox_conjugate(x / self.smoothing, rate)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        total = s + self.smoothing
        return x + s / total * (self._prox(x, total) - x)

    def lipschitz(self, x: Tensor) -> Scalar:
        bound = largest(self.weight, x) / smallest(self.smoothing, x)
        return larger(bound, -self.strong_convexity(x))

    def strong_convexity(self, x: Tensor) -> Scalar:
        mu = like(self.term.strong_convexity(x), x)
        if not bool((mu != 0).any()):
            return 0.0
        ends = [mu / (1 + mu * end(self.smoothing, x)) for end in (smallest, largest)]
        mu = torch.minimum(*ends)  # falls with the smoothing
        return torch.minimum(smallest(self.weight, x) * mu, largest(self.weight, x) * mu)

    def take(self, index: Tensor, x: Tensor) -> MoreauEnvelope | None:
        taken, term = super().take(index, x), self.term.take(index, x)
        return None if taken is None or term is None else replace(taken, term=term)

    def guess(self) -> Tensor | None:
        return self.term.guess()


def _per_sample(step: Tensor | float) -> Scalar:  # (B, 1, ..., 1) -> (B,)
    return step.flatten() if isinstance(step, Tensor) and step.ndim > 1 else step
