"""Second derivatives by differences: what total generalised variation is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._broadcast import Scalar
from .base import Operator, image_dims
from .boundaries import along
from .differences import Gradient


@dataclass(frozen=True, eq=False)
class SymmetrizedGradient(Operator):
    """Ew = (Dw + Dw^T) / 2 of a vector field: (B, ..., dims, *image) -> (B, ..., m, *image),
    m = dims (dims + 1) / 2.

    The entries ii first, then those ij, i < j, times sqrt(2): their 2-norm is Frobenius' of the
    matrix, and L21(dim=-dims - 1) its sum over the pixels. Backward differences, for a field that
    stands where the forward differences of `Gradient` do; 0 where such a field is not defined. So
    E @ Gradient() is 0 on all affine images, up to the edge.

    [1] Bredies, Kunisch, Pock. Total generalized variation. SIAM J. Imaging Sci., 2010.
    """

    dims: int = 2

    def __post_init__(self) -> None:
        image_dims("SymmetrizedGradient", self.dims)

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        return [(i, j) for i in range(self.dims) for j in range(i + 1, self.dims)]

    def __call__(self, w: Tensor) -> Tensor:
        if w.ndim < self.dims + 2 or w.shape[-self.dims - 1] != self.dims:
            raise ValueError(
                f"SymmetrizedGradient({self.dims}) needs a vector field (B, ..., {self.dims}, "
                f"*image), as Gradient({self.dims}) gives, got {tuple(w.shape)}."
            )
        fast = _kernels().symmetrized(w) if self.dims == 2 else None
        if fast is not None:
            return fast
        field = w.unbind(-self.dims - 1)
        straight = [_inside(part, i - self.dims) for i, part in enumerate(field)]
        mixed = [
            (_backward(field[i], j - self.dims) + _backward(field[j], i - self.dims)) / math.sqrt(2)
            for i, j in self._pairs
        ]
        return torch.stack(straight + mixed, -self.dims - 1)

    def adjoint(self, y: Tensor) -> Tensor:
        fast = _kernels().symmetrized_adjoint(y) if self.dims == 2 else None
        if fast is not None:
            return fast
        parts = y.unbind(-self.dims - 1)
        field = [_inside_adjoint(parts[i], i - self.dims) for i in range(self.dims)]
        for (i, j), part in zip(self._pairs, parts[self.dims :], strict=True):
            part = part / math.sqrt(2)
            field[i] = field[i] + _backward_adjoint(part, j - self.dims)
            field[j] = field[j] + _backward_adjoint(part, i - self.dims)
        return torch.stack(field, -self.dims - 1)


@dataclass(frozen=True, eq=False)
class Hessian(Operator):
    """The second differences SymmetrizedGradient() @ Gradient(): (B, ..., *image) -> (B, ..., m,
    *image), xx and yy, then sqrt(2) xy. 0 on affine images."""

    dims: int = 2

    def __post_init__(self) -> None:
        image_dims("Hessian", self.dims)

    def __call__(self, x: Tensor) -> Tensor:
        return SymmetrizedGradient(self.dims)(Gradient(self.dims)(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return Gradient(self.dims).adjoint(SymmetrizedGradient(self.dims).adjoint(y))


@dataclass(frozen=True, eq=False)
class Laplacian(Operator):
    """-Gradient()* Gradient(): the sum over the neighbours of (neighbour - x), none beyond the
    edge. Self-adjoint; |K| = |Gradient()|^2."""

    dims: int = 2

    def __post_init__(self) -> None:
        image_dims("Laplacian", self.dims)

    def __call__(self, x: Tensor) -> Tensor:
        gradient = Gradient(self.dims)
        return -gradient.adjoint(gradient(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self(y)

    def norm(self, x: Tensor) -> Scalar:
        return Gradient(self.dims).norm(x) ** 2


def _kernels() -> Any:
    from ..kernels import fields  # compiled when first used

    return fields


def _backward(x: Tensor, axis: int) -> Tensor:
    """x_i - x_{i-1}, 0 at the near edge."""
    return pad(x.diff(dim=axis), along(axis, 1, 0))


def _backward_adjoint(y: Tensor, axis: int) -> Tensor:
    return _diff_adjoint(y.narrow(axis, 1, y.shape[axis] - 1), axis)


def _inside(x: Tensor, axis: int) -> Tensor:
    """x_i - x_{i-1}, 0 at both edges."""
    n = x.shape[axis]
    if n < 3:
        return 0 * x
    return pad(x.narrow(axis, 0, n - 1).diff(dim=axis), along(axis, 1, 1))


def _inside_adjoint(y: Tensor, axis: int) -> Tensor:
    n = y.shape[axis]
    if n < 3:
        return 0 * y
    inner = _diff_adjoint(y.narrow(axis, 1, n - 2), axis)
    return pad(inner, along(axis, 0, 1))


def _diff_adjoint(y: Tensor, axis: int) -> Tensor:
    """The adjoint of x.diff(dim=axis)."""
    return pad(y, along(axis, 1, 0)) - pad(y, along(axis, 0, 1))
