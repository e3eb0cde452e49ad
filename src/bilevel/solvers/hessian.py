"""Hessians of smooth terms, written out."""

from __future__ import annotations

from functools import reduce, singledispatch

import torch
from torch import Tensor

from .._broadcast import Scalar
from ..differentiation.linearisation import Linearisation
from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..operators.sparse_matrix import SparseMatrix
from ..terms.base import Smooth, Weighted
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.quadratic import Quadratic
from ..terms.smooth import LeastSquares, Logistic


@torch.no_grad()
def dense_hessian(f: Smooth, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """The Hessian at x (B, *event), (B or 1, n, n) with n the number of unknowns, detached: one for
    all samples where it is so; in `dtype`, that of x by default.

    A* D A for F(Ax), D the second derivatives of a separable F; else n products by autograd.
    """
    dtype = dtype or x.dtype
    terms = f.terms if isinstance(f, SmoothSum) else (f,)
    bends = [weight_of(t, x).flatten(1).to(dtype) for t in terms if isinstance(t, LeastSquares)]
    parts = [_part(t, x, dtype) for t in terms if not isinstance(t, LeastSquares)]
    if not parts:
        return torch.diag_embed(reduce(Tensor.add, bends))
    H = reduce(Tensor.add, parts)
    for bend in bends:
        H = H if len(H) >= len(bend) else H.repeat(len(bend), 1, 1)
        H.diagonal(dim1=1, dim2=2).add_(bend)
    return H


def _part(f: Smooth, x: Tensor, dtype: torch.dtype) -> Tensor:  # -> (B or 1, n, n), not shared
    if isinstance(f, SmoothSum):
        return dense_hessian(f, x, dtype)
    if isinstance(f, Quadratic):
        return (weight_of(f, x)[:, :1, None] * f.symmetric.detach()).to(dtype)
    if x.ndim == 2 and isinstance(f, SmoothComposition) and _written_out(f.operator):
        image = f.operator.rest(x) if f.outer.quadratic else f.operator(x)
        curvature = second_derivative(f.outer, image)
        if curvature is not None:
            return f.operator.gram(curvature.to(dtype))  # type: ignore[attr-defined]
    return Linearisation((x,), lambda z: (f.grad(z[0]),)).matrix().to(dtype)


def rows(f: Smooth, x: Tensor) -> int | None:
    """How many rows the matrices A have of which the Hessian at x is made, A* D A; None where it is
    made of its products with vectors."""
    if isinstance(f, SmoothSum):
        parts = [rows(term, x) for term in f.terms]
        return None if None in parts else sum(parts)  # type: ignore[arg-type]
    if isinstance(f, LeastSquares | Quadratic):
        return 0
    if x.ndim != 2 or not isinstance(f, SmoothComposition) or not _written_out(f.operator):
        return None
    m = f.operator.matrix.shape[-2]  # type: ignore[attr-defined]
    return m if second_derivative(f.outer, x.new_zeros(len(x), m)) is not None else None


def uniform(f: LeastSquares, x: Tensor) -> Scalar | None:
    """The weight as one number, or one a sample, of x's rank; None if it varies over the event."""
    weight = f.weight
    if not isinstance(weight, Tensor):
        return weight
    if weight.numel() == 1:
        return weight.reshape(())
    return weight if weight.shape == (len(x), *[1] * (x.ndim - 1)) else None


def _written_out(operator: Operator) -> bool:
    dense = isinstance(operator, Matrix) and operator.matrix.layout == torch.strided
    return dense or isinstance(operator, SparseMatrix)


@singledispatch
def second_derivative(f: Smooth, u: Tensor) -> Tensor | None:  # -> (B or 1, *event)
    """That of a separable f, detached; None for one that is not separable, or not known to be.

    A term of your own joins by `second_derivative.register`.
    """
    return None


@second_derivative.register
def _(f: LeastSquares, u: Tensor) -> Tensor:
    return weight_of(f, u)


@second_derivative.register
def _(f: Logistic, u: Tensor) -> Tensor:
    chance = torch.sigmoid(u.detach())  # of either label: their product is the same
    return weight_of(f, u) * torch.addcmul(chance, chance, chance, value=-1)


def weight_of(f: Weighted, u: Tensor) -> Tensor:  # -> (B or 1, *event)
    given = f.weight
    weight = given.detach().to(u) if isinstance(given, Tensor) else u.new_full((), given)
    weight = weight.reshape((1,) * (u.ndim - weight.ndim) + weight.shape)
    return weight.expand(len(weight), *u.shape[1:])
