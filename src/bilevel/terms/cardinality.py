"""The convex side of k-sparsity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like
from .base import Proximable


@dataclass(frozen=True, eq=False)
class SparseEnvelope(Proximable):
    """Q(x) with Q(x) + |x|^2 / 2 the largest convex function below |x|^2 / 2 where at most `count`
    entries of x are not 0, inf elsewhere: the quadratic envelope of L0Ball(count) [1].

    Q + |x|^2 / 2 is half the squared k-support norm [2], so Q is weakly convex, mu = -1. Beside
    |Ax - b|^2 / 2 with |A| <= 1 it has the same best points as L0Ball, and fewer stationary ones.
    prox  for step < 1 the entries are (y - step z) / (1 - step) with z = max(|y|, s) on the `count`
          largest and min(|y| / step, s) on the others, s such that they fit together (a sort); from
          step = 1 on, the `count` largest are kept

    [1] Carlsson. On convex envelopes and regularization of non-convex functionals without moving
        global minima. JOTA, 2019.
    [2] Argyriou, Foygel, Srebro. Sparse prediction with the k-support norm. NeurIPS, 2012.
    """

    count: int  # >= 1

    def __post_init__(self) -> None:
        if not isinstance(self.count, int) or self.count < 1:
            raise ValueError(f"SparseEnvelope.count must be an integer >= 1, got {self.count!r}.")

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -1.0

    def value(self, x: Tensor) -> Tensor:
        size = x.abs().flatten(1).sort(1, descending=True).values
        k = min(self.count, size.shape[1])
        tails = (
            size.flip(1).cumsum(1).flip(1)[:, :k].flip(1)
        )  # tails[r]: all but the k - 1 - r first
        share = torch.arange(1, k + 1, dtype=x.dtype, device=x.device)
        before = torch.cat([size[:, : k - 1].flip(1), torch.full_like(size[:, :1], torch.inf)], 1)
        r = (before > tails / share).to(torch.uint8).argmax(1, keepdim=True)  # the first such
        tail = tails.gather(1, r)[:, 0].square() / (r[:, 0] + 1)
        inside = torch.arange(size.shape[1], device=x.device) >= k - 1 - r
        return (tail - (inside * size.square()).sum(1)) / 2

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        size = x.abs().flatten(1)
        k = min(self.count, size.shape[1])
        kept = size.detach().topk(k, dim=1).indices
        top = torch.zeros_like(size, dtype=torch.bool).scatter(1, kept, True)
        t = like(expand(step, x), x)
        t = t.flatten(1) if t.ndim else t
        hard, t = t >= 1, t.clamp(max=1 - torch.finfo(x.dtype).eps)
        reach = torch.where(top, size, size / t)  # where an entry meets the level s
        s = _level(reach.detach(), top, t.detach())
        tied = torch.where(top, reach <= s, reach >= s)
        weights = torch.where(top, 1 / t, 1.0) * tied
        total = weights.sum(1, keepdim=True)
        mean = (weights * reach).sum(1, keepdim=True) / torch.where(total > 0, total, 1.0)
        s = torch.where(total > 0, mean, s)
        z = torch.where(tied, s, reach)
        soft = (size - t * z) / (1 - t)
        found = torch.where(hard | (top & ~tied), torch.where(top, size, 0.0), soft)
        return (x.sign().flatten(1) * torch.where(top | tied, found, 0.0)).reshape(x.shape)


def _level(reach: Tensor, top: Tensor, t: Tensor) -> Tensor:  # (B, n) -> (B, 1)
    """The root s of sum over the others of max(reach - s, 0) - sum over the top of max(s - reach,
    0) / t, which falls from one reach to the next in straight lines."""
    b, order = reach.sort(1)
    first = top.gather(1, order).to(b)
    rest = 1 - first
    pull = b * first.cumsum(1) - (b * first).cumsum(1)  # at each b: of the top, those below
    above, number = ((v.flip(1).cumsum(1)).flip(1) for v in (b * rest, rest))
    fall = above - b * number - pull / t
    j = (fall <= 0).to(torch.uint8).argmax(1, keepdim=True)
    i = (j - 1).clamp(min=0)
    low, high, f_low, f_high = b.gather(1, i), b.gather(1, j), fall.gather(1, i), fall.gather(1, j)
    part = torch.where(f_low > f_high, f_low / (f_low - f_high), 1.0).clamp(0, 1)
    return low + part * (high - low)
