"""Newton's method for logistic regression, a sample in one pass where torch makes hundreds."""

from __future__ import annotations

import torch
from torch import Tensor

from .arrays import array
from .compiled import over_rows


def logistic(
    rows: Tensor,  # (B or 1, m, n)
    labels: Tensor,  # (B or 1, m)
    weight: Tensor,  # (B or 1, m)
    bend: Tensor,  # (B or 1, n)
    pull: Tensor,  # (B or 1, n)
    x: Tensor,  # (B, n)
    tol: float,
    most: int,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """(the minimiser, the Cholesky factor of the Hessian there, steps (B,)) of

        sum_i weight_i log(1 + exp(-label_i <a_i, x>)) + sum_j (bend_j x_j / 2 - pull_j) x_j

    by Newton steps from x, until one changes x, and so the Hessian, by no more than tol,
    relatively. None where `most` do not do, or a Hessian is nearly singular.
    """
    from .newton_loops import logistic

    x, steps = x.detach().clone(), torch.empty(len(x), dtype=torch.long)
    factor = x.new_empty(*x.shape, x.shape[1])
    strides = rows.expand(len(x), -1, -1).stride()
    last = sum(stride * (size - 1) for stride, size in zip(rows.stride(), rows.shape, strict=True))
    memory = rows.as_strided((last + 1,), (1,))  # read as it is stored
    arrays = (array(part) for part in (labels, weight, bend, pull))
    out = (part.numpy() for part in (x, factor, steps))
    work = 100 * rows[0].numel()
    over_rows(logistic, len(x), work, array(memory), strides, *arrays, tol, most, *out)
    return None if bool((steps < 0).any()) else (x, factor, steps)
