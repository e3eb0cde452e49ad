"""Hessians of smooth terms, written out."""

from __future__ import annotations

import torch
from torch import Tensor

from .._broadcast import Scalar
from ..differentiation.certificate import Certificate
from ..differentiation.system import System
from ..operators.matrix import Matrix
from ..terms.base import Smooth
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.smooth import LeastSquares


@torch.no_grad()
def dense_hessian(f: Smooth, x: Tensor) -> Tensor:  # -> (B or 1, n, n), detached
    """The Hessian at x (B, *event), n the number of unknowns: one for all samples where it is so.

    From the matrices of least squares; else n products by autograd.
    """
    if isinstance(f, SmoothSum):
        return sum((dense_hessian(term, x) for term in f.terms), x.new_zeros(()))  # type: ignore[return-value]
    if isinstance(f, LeastSquares):
        return torch.diag_embed(weight_of(f, x).flatten(1))
    if isinstance(f, SmoothComposition) and isinstance(f.outer, LeastSquares):
        if isinstance(f.operator, Matrix) and f.operator.matrix.layout == torch.strided:
            a = f.operator.matrix.detach()
            a = a if a.ndim == 3 else a[None]
            return (weight_of(f.outer, f.operator(x))[:, :, None] * a).mT @ a
    system = System((x,), lambda z: (f.grad(z[0]),), None, 0.0, "ignore", Certificate())
    return system.matrix()


def uniform(f: LeastSquares, x: Tensor) -> Scalar | None:
    """The weight as one number, or one a sample, of x's rank, detached; None if it varies over the
    event."""
    weight = f.weight
    if not isinstance(weight, Tensor):
        return weight
    weight = weight.detach()
    if weight.numel() == 1:
        return weight.reshape(())
    return weight if weight.shape == (len(x), *[1] * (x.ndim - 1)) else None


def weight_of(f: LeastSquares, u: Tensor) -> Tensor:  # -> (B or 1, *event)
    weight = torch.as_tensor(f.weight, dtype=u.dtype, device=u.device).detach()
    weight = weight.reshape((1,) * (u.ndim - weight.ndim) + weight.shape)
    return weight.expand(len(weight), *u.shape[1:])
