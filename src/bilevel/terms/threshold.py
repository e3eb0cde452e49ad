"""Projections by sorting: the simplex and the l1 ball, which the maximum norms share."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def project_simplex(x: Tensor, total: Tensor | float, dim: int) -> Tensor:
    """(x - level)_+ with sum total along `dim`: the level by sorting, O(n log n).

    Held, Wolfe, Crowder. Validation of subgradient optimization. Math. Programming, 1974. Distances
    to the largest entry are what is sorted: those that count are at most `total`, however large x.
    """
    if x.shape[dim] == 0:
        return x
    below = x - x.detach().amax(dim, keepdim=True)
    ordered = below.sort(dim=dim, descending=True).values
    excess = ordered.cumsum(dim) - total
    shape = [1] * x.ndim
    shape[dim] = -1
    count = torch.arange(1, x.shape[dim] + 1, dtype=x.dtype, device=x.device).reshape(shape)
    active = (ordered * count > excess).sum(dim, keepdim=True).clamp(min=1)
    level = excess.gather(dim, active - 1) / active
    return (below - level).relu()  # derivative 0 at 0, as the level counts it; clamp's is 1


def project_l1(x: Tensor, radius: Tensor | float, dim: int) -> Tensor:
    """The projection onto sum |x_i| <= radius along `dim`: x itself inside, else
    sign(x) (|x| - level)_+.

    Duchi, Shalev-Shwartz, Singer, Chandra. Efficient projections onto the l1-ball. ICML, 2008.
    """
    size = x.abs()
    inside = size.sum(dim, keepdim=True) <= radius
    return torch.where(inside, x, x.sign() * project_simplex(size, radius, dim))


def flat(x: Tensor) -> Tensor:  # (B, *event) -> (B, 1, ..., 1, n), of x's rank
    """The event as one vector along the last dim; what broadcast as (B, 1, ..., 1) still does."""
    return x.reshape(len(x), *[1] * (x.ndim - 2), math.prod(x.shape[1:]))
