"""Norms of the largest entries: their duals are sums of magnitudes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from .._broadcast import Scalar, carries_batch, expand
from .base import Dualizable, Proximable, Weighted
from .isotonic import decreasing
from .manifolds import Clusters, Manifold, everything, least, shared
from .norms import _fitting, _indicator
from .threshold import flat, project_l1


def _cut(w: Tensor, weight: Tensor, cut: Tensor, dim: int | tuple[int, ...]) -> Clusters:
    """What is cut off the largest entries of each group is other than 0, and they move together; a
    group that is cut off whole is 0."""
    size = w.abs()
    excess = size.sum(dim, keepdim=True) - weight
    joined, n = cut != 0, w.shape[1:].numel()
    number = torch.arange(n, device=w.device).reshape(w.shape[1:])
    first = torch.where(joined, number, n).amin(dim, keepdim=True)
    label = torch.where(joined, first, number.expand_as(w)).flatten(1)
    level = (size - cut.abs()).amax(dim, keepdim=True)
    slack = torch.where(excess > 0, torch.minimum((size - level).abs(), excess), -excess)
    support = (excess > 0).expand_as(w)
    sign = torch.where(joined, w.sign(), torch.ones_like(w))
    return Clusters(support, least(slack), label, sign)


@dataclass(frozen=True, eq=False)
class Linf(Weighted, Proximable, Dualizable):
    """g(x) = weight max |x_i|, over the whole event.

    prox      x - projection onto the l1 ball of radius step weight: the largest entries are cut to
              one level
    at a kink (an entry that just reaches the level) the derivative returned is that of one below it
    cost      O(n log n), a sort
    """

    def density(self, x: Tensor) -> Tensor:
        return flat(x.abs()).amax(-1, keepdim=True)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - self._project(x, expand(step, x) * self.weight)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return self._project(y, self.weight)

    def _project(self, y: Tensor, radius: Tensor | float) -> Tensor:
        return project_l1(flat(y), radius, -1).reshape(y.shape)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(flat(y.abs()).sum(-1, keepdim=True), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(flat(y.abs()).sum(-1, keepdim=True), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w, weight = x + dual, shared(self.weight, x)
        return _cut(w, weight, self._project(w, weight), everything(x))


@dataclass(frozen=True, eq=False)
class L1Inf(Weighted, Proximable, Dualizable):
    """g(x) = sum over groups of weight max |x_group|, the groups being the vectors along `dim`.

    prox      x - projection of each group onto the l1 ball of radius step weight
    Quattoni, Carreras, Collins, Darrell. An efficient projection for l1,inf regularization. ICML,
    2009.
    """

    dim: int = -1  # the weight broadcasts against x with this dim of size 1

    def density(self, x: Tensor) -> Tensor:
        return x.abs().amax(self.dim, keepdim=True)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a group

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - project_l1(x, expand(step, x) * self.weight, self.dim)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return project_l1(y, self.weight, self.dim)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(y.abs().sum(self.dim, keepdim=True), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(y.abs().sum(self.dim, keepdim=True), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w, weight = x + dual, shared(self.weight, x)
        return _cut(w, weight, project_l1(w, weight, self.dim), self.dim)


@dataclass(frozen=True, eq=False)
class SortedL1(Weighted, Proximable, Dualizable):
    """g(x) = weight sum_i levels_i |x|_(i), |x|_(1) >= |x|_(2) >= ... over the whole event (SLOPE,
    OWL).

    prox      sort |x|, subtract step weight levels, make that decreasing by pooling adjacent
              violators, cut at 0, sort back with the signs
    equal levels give L1, levels 1, 0, ..., 0 give Linf
    at a kink (magnitudes that just meet, or just vanish) the derivative is one of the sides'
    cost      O(n log n)
    Bogdan, van den Berg, Sabatti, Su, Candes. SLOPE: adaptive variable selection via convex
    optimization. Ann. Appl. Stat., 2015.
    """

    levels: Tensor  # (n,), or (B, n): n the entries of the event; levels_1 >= ... >= levels_n >= 0

    batched: ClassVar[tuple[str, ...]] = ("weight",)  # levels are not of x's rank: see take

    def __post_init__(self) -> None:
        if not isinstance(self.levels, Tensor) or self.levels.ndim not in (1, 2):
            got = getattr(self.levels, "shape", type(self.levels).__name__)
            raise ValueError(
                "SortedL1.levels must be a tensor (n,), or (B, n) for other levels in each sample, "
                f"got {tuple(got) if isinstance(got, torch.Size) else got}."
            )

    def density(self, x: Tensor) -> Tensor:
        ordered = self._rows(x).abs().sort(dim=1, descending=True).values
        return (ordered * self.levels).sum(1).reshape(-1, *[1] * (x.ndim - 1))

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        rows, t = self._rows(x), expand(step, x) * self.weight
        if isinstance(t, Tensor) and t.ndim:
            t = t.reshape(-1, 1)
        ordered, order = rows.abs().sort(dim=1, descending=True)
        size = decreasing(ordered - t * self.levels).clamp(min=0)
        back = torch.zeros_like(size).scatter(1, order, size)
        return (rows.sign() * back).reshape(x.shape)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(*self._partial_sums(y))

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(*self._partial_sums(y))

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        """Equal magnitudes move together, those that are 0 stay; by the partial sums of what the
        prox took off, which are 0 at the end of a cluster and else positive."""
        w, weight = self._rows(x + dual), shared(self.weight, x).reshape(-1, 1)
        ordered, order = w.abs().sort(dim=1, descending=True)
        size = self.prox(w, 1.0).abs().gather(1, order)  # decreasing, too
        fall = size - torch.nn.functional.pad(size[:, 1:], (0, 1))
        taken = (size - ordered + weight * self.levels.detach()).cumsum(1)
        label = (fall > 0).long().cumsum(1) - (fall > 0).long()
        back = torch.empty_like(order).scatter_(1, order, label)
        support = (size > 0).gather(1, order.argsort(1))
        margin = least(torch.where(fall > 0, fall, taken))
        return Clusters(support.reshape(x.shape), margin, back, w.sign().reshape(x.shape))

    def _partial_sums(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Those of |y|_(i), which in the dual ball stay below those of weight levels_i."""
        ordered = self._rows(y).abs().sort(dim=1, descending=True).values
        weight = self.weight
        weight = weight.reshape(-1, 1) if isinstance(weight, Tensor) and weight.ndim else weight
        return ordered.cumsum(1), weight * self.levels.cumsum(-1)

    def _rows(self, x: Tensor) -> Tensor:  # (B, n)
        rows = x.flatten(1)
        n = rows.shape[1]
        if tuple(self.levels.shape) not in ((n,), (1, n), (len(x), n)):
            raise ValueError(
                f"SortedL1.levels has shape {tuple(self.levels.shape)}, x {tuple(x.shape)}: one "
                f"level for each of its {n} entries is needed, ({n},) or ({len(x)}, {n})."
            )
        return rows

    def take(self, index: Tensor, x: Tensor) -> Self:
        taken = super().take(index, x)
        assert taken is not None
        own = carries_batch(self.levels, x.flatten(1))
        return replace(taken, levels=self.levels[index]) if own else taken
