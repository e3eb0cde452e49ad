"""Logistic regression as the arrays that a kernel takes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .._tangents import traced
from ..kernels.arrays import plain
from ..operators.matrix import Matrix
from ..terms.base import Smooth
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.smooth import LeastSquares, Logistic

_MOST, _ROOM = 128, 2**19  # unknowns, and numbers in A, from which torch's products are as fast


class LogisticRegression(NamedTuple):
    """sum_i weight_i log(1 + exp(-label_i <a_i, x>)) + sum_j (bend_j x_j / 2 - pull_j) x_j, all
    detached; a dim of 1 stands for the batch where its samples share a part."""

    rows: Tensor  # (B or 1, m, n)
    labels: Tensor  # (B or 1, m)
    weight: Tensor  # (B or 1, m)
    bend: Tensor  # (B or 1, n)
    pull: Tensor  # (B or 1, n)


@torch.no_grad()
def logistic_regression(f: Smooth, x: Tensor) -> LogisticRegression | None:
    """f as one, Logistic @ Matrix and any LeastSquares of x, where that is small, dense, in float64
    and on the CPU; else None."""
    terms = f.terms if type(f) is SmoothSum else (f,)
    squares = [t for t in terms if type(t) is LeastSquares]
    fits = [t for t in terms if type(t) is SmoothComposition]
    if len(fits) != 1 or len(squares) + 1 != len(terms) or not _taken(x):
        return None
    outer, operator = fits[0].outer, fits[0].operator
    if type(operator) is not Matrix or type(outer) is not Logistic:
        return None
    rows = operator.matrix.detach()
    rows = rows if rows.ndim == 3 else rows[None]
    m, n = rows.shape[1:]
    if rows.layout != torch.strided or rows.dtype != x.dtype or m * n > _ROOM:
        return None
    bend = pull = x.new_zeros(1, n)
    for term in squares:
        each = _row(term.weight, x, n)
        bend, pull = bend + each, pull + each * _row(term.target, x, n)
    parts = _row(outer.labels, x, m), _row(outer.weight, x, m), bend, pull
    return LogisticRegression(rows, *parts)


def _taken(x: Tensor) -> bool:
    known = type(x) is Tensor and x.dtype == torch.float64 and x.ndim == 2
    return known and x.shape[1] <= _MOST and plain(x) and not traced()


def _row(value: Tensor | float, x: Tensor, size: int) -> Tensor:  # -> (B or 1, size)
    """A field that broadcasts against a row of this size a sample."""
    if not isinstance(value, Tensor):
        return x.new_full((1, size), value)
    value = value.detach().to(x.dtype)
    value = value.reshape((1,) * (2 - value.ndim) + value.shape)
    return value if value.shape[1] == size else value.expand(len(value), size)
