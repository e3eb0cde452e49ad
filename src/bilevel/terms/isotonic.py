"""Monotone regression in batches: the pooling of adjacent violators."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 48  # random rows of a million entries take about 20


def increasing(y: Tensor) -> Tensor:  # (..., n) -> the same
    """The nearest vector with u_1 <= ... <= u_n to each along the last dim.

    It is the mean over blocks, and so is its derivative, of all orders; where two blocks touch
    (equal means) they count as two. O(n) a round, see `blocks`.

    Best, Chakravarti. Active set algorithms for isotonic regression. Math. Programming, 1990.
    """
    rows = y.reshape(-1, y.shape[-1])
    if not rows.numel():
        return y
    label = blocks(rows.detach())
    return _means(rows, label).gather(1, label).reshape(y.shape)


def decreasing(y: Tensor) -> Tensor:  # (..., n) -> the same
    """The nearest vector with u_1 >= ... >= u_n."""
    return -increasing(-y)


@torch.no_grad()
def blocks(rows: Tensor) -> Tensor:  # (N, n) -> (N, n), 0, 1, ... along each row
    """The number of the block that each entry falls into.

    A round joins every run of blocks whose means fall, in all rows at once. Rows that are not done
    after 48 rounds (a cascade joins one block a round) are handed to SciPy's sequential algorithm,
    and so are few long rows on the CPU from the start: it is the faster one there.
    """
    from scipy.optimize import isotonic_regression  # not with `import bilevel`

    head = torch.ones_like(rows, dtype=torch.bool)  # whether a block begins here
    label = head.cumsum(1) - 1
    few = rows.is_cpu and rows.shape[0] < rows.shape[1]
    for _ in range(0 if few else _ROUNDS):
        joined = _falls(_means(rows, label), label)
        if not bool(joined.any()):
            return label
        head &= ~joined.gather(1, label)
        label = head.cumsum(1) - 1
    cascading = _falls(_means(rows, label), label).any(1).nonzero().flatten()
    for i in cascading.tolist():
        ends = isotonic_regression(rows[i].double().cpu().numpy()).blocks
        starts = torch.as_tensor(ends[:-1], dtype=torch.long, device=rows.device)
        head[i] = torch.zeros_like(head[i]).index_fill(0, starts, True)
    return head.cumsum(1) - 1


def _means(rows: Tensor, label: Tensor) -> Tensor:  # one a block, then zeros
    total = torch.zeros_like(rows).scatter_add(1, label, rows)
    size = torch.zeros_like(rows).scatter_add(1, label, torch.ones_like(rows))
    return total / size.clamp(min=1)


def _falls(mean: Tensor, label: Tensor) -> Tensor:  # (N, n) bool
    """Whether a block's mean is below that of the block before."""
    falls = torch.zeros_like(label, dtype=torch.bool)
    number = torch.arange(1, mean.shape[1], device=mean.device)
    falls[:, 1:] = (mean[:, 1:] < mean[:, :-1]) & (number <= label[:, -1:])
    return falls
