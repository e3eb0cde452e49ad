"""Constraints and levels whose fields contradict each other: empty sets, norms that are none."""

from __future__ import annotations

from functools import singledispatch

import torch
from torch import Tensor

from ..terms.affine import Affine, HalfSpace, Hyperplane
from ..terms.base import Term
from ..terms.hyperplane_box import HyperplaneBox
from ..terms.max_norms import SortedL1


@singledispatch
def check_set(term: Term, x: Tensor) -> None:
    """For terms whose fields are known to broadcast against x."""


@check_set.register
def _(term: Hyperplane | HalfSpace, x: Tensor) -> None:
    _normal(term)


@check_set.register
def _(term: HyperplaneBox, x: Tensor) -> None:
    _normal(term)
    _reach(term, x)


@check_set.register
def _(term: SortedL1, x: Tensor) -> None:
    _levels(term.levels.detach())


@check_set.register
def _(term: Affine, x: Tensor) -> None:
    _rank(term.matrix.detach())


def _normal(term: Hyperplane | HalfSpace | HyperplaneBox) -> None:
    if not isinstance(term.normal, Tensor):
        raise TypeError(
            f"{type(term).__name__}.normal must be a tensor of the event's shape, got "
            f"{type(term.normal).__name__}. For the sum of all entries: torch.ones(n)."
        )
    if bool((term.normal.flatten(min(1, term.normal.ndim - 1)) == 0).all(-1).any()):
        raise ValueError(
            f"{type(term).__name__}.normal is 0 (in some sample), which is no direction. Leave the "
            "term out there."
        )


def _reach(term: HyperplaneBox, x: Tensor) -> None:
    a = term.normal + torch.zeros_like(x)
    ends = torch.stack([torch.where(a == 0, 0.0, a * bound) for bound in (term.lower, term.upper)])
    low, high = ends.amin(0).flatten(1).sum(1), ends.amax(0).flatten(1).sum(1)
    offset = (term.offset + torch.zeros_like(x)).flatten(1)[:, 0]
    slack = 1e-6 * (1 + offset.abs())
    for i in ((offset < low - slack) | (offset > high + slack)).nonzero().flatten().tolist():
        raise ValueError(
            f"HyperplaneBox is empty in sample {i}: within the bounds <normal, x> lies between "
            f"{float(low[i]):.6g} and {float(high[i]):.6g}, offset is {float(offset[i]):.6g}. Move "
            "offset, or widen the bounds."
        )


def _levels(levels: Tensor) -> None:
    room = 1e-3 * levels.abs().amax()  # for finite differences
    if bool((levels < -room).any()) or bool((levels.diff(dim=-1) > room).any()):
        raise ValueError(
            "SortedL1.levels must be >= 0 and must not increase, else it is not convex. Pass "
            "levels.sort(descending=True).values; of learned ones learn the logarithms of the "
            "differences."
        )


def _rank(matrix: Tensor) -> None:
    rank, rows = int(torch.linalg.matrix_rank(matrix).min()), matrix.shape[-2]
    if rank < rows:
        raise ValueError(
            f"Affine.matrix of shape {tuple(matrix.shape)} has rank {rank} for {rows} rows: they "
            "repeat or contradict each other. Keep rows that are independent, or relax the "
            "constraint: L2Ball(eps, target) @ Matrix(matrix)."
        )
