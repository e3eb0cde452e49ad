"""Matrices, dense, sparse, or one a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import Scalar
from .._remembered import OfTensor
from .base import Operator, lanczos_norm

_SMALL = 256  # up to here the exact spectral norm costs less than a Lanczos run
_ALONE = 10_000  # entries from which one product a sample is faster than a batch of them


@dataclass(frozen=True, eq=False)
class Matrix(Operator):
    """x -> A x for x of shape (B, n), or (B, n, k): k columns, one a class say. A is (m, n), dense
    or sparse, or (B, m, n): one matrix a sample."""

    matrix: Tensor

    def __post_init__(self) -> None:
        a = self.matrix
        if (
            not isinstance(a, Tensor)
            or a.ndim not in (2, 3)
            or (a.ndim == 3 and a.layout != torch.strided)
        ):
            got = (
                f"shape {tuple(a.shape)}, {a.layout}" if isinstance(a, Tensor) else type(a).__name__
            )
            raise ValueError(
                f"Matrix needs a tensor (m, n), dense or sparse, or a dense (B, m, n), got {got}."
            )
        if a.layout not in (torch.strided, torch.sparse_coo):
            object.__setattr__(self, "matrix", a.to_sparse_coo())

    def __call__(self, x: Tensor) -> Tensor:  # (B, n) -> (B, m), (B, n, k) -> (B, m, k)
        self._check(x, self.matrix.shape[-1], "x", "columns")
        return self._product(self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:  # (B, m) -> (B, n), (B, m, k) -> (B, n, k)
        self._check(y, self.matrix.shape[-2], "y", "rows")
        return self._product(
            self.matrix.mT if self.matrix.layout == torch.strided else self.matrix.t(), y
        )

    def rest(self, x: Tensor) -> Tensor:
        self._check(x, self.matrix.shape[-1], "x", "columns")
        return self._zeros(x, self.matrix.shape[-2])

    def origin(self, y: Tensor) -> Tensor:
        self._check(y, self.matrix.shape[-2], "y", "rows")
        return self._zeros(y, self.matrix.shape[-1])

    def _zeros(self, like: Tensor, size: int) -> Tensor:
        dtype = torch.promote_types(like.dtype, self.matrix.dtype)
        return like.new_zeros(len(like), size, *like.shape[2:], dtype=dtype)

    @staticmethod
    def _product(a: Tensor, x: Tensor) -> Tensor:
        if a.layout != torch.strided:
            image = torch.sparse.mm(a, x.movedim(1, 0).flatten(1))
            return image.unflatten(1, (len(x), *x.shape[2:])).movedim(0, 1)
        if x.ndim == 3:
            return a @ x
        if a.ndim == 2:
            return x @ a.mT
        return torch.bmm(x.unsqueeze(1), a.mT).squeeze(1)  # three times as fast as columns

    def _check(self, x: Tensor, size: int, name: str, side: str) -> None:
        if (
            x.ndim not in (2, 3)
            or x.shape[1] != size
            or (self.matrix.ndim == 3 and len(x) != len(self.matrix))
        ):
            raise ValueError(
                f"Matrix of shape {tuple(self.matrix.shape)} needs {name} of shape (B, {size}), "
                f"its number of {side}, or (B, {size}, k), "
                f"got {tuple(x.shape)}. For one problem pass {name}[None]: dim 0 is the batch."
            )

    def absolute(self) -> Matrix:
        return replace(self, matrix=self.matrix.detach().abs())

    def columns(self, index: Tensor) -> Matrix:
        """The operator of some of the unknowns."""
        return replace(self, matrix=self.matrix.mT.index_select(-2, index).mT)

    @torch.no_grad()
    def gram(self, weight: Tensor) -> Tensor:  # (B or 1, m) -> (B or 1, n, n)
        """A* diag(weight) A, of a dense matrix, in the weight's dtype: R* R, R = sqrt(weight) A,
        where that is faster."""
        a = (self.matrix if self.matrix.ndim == 3 else self.matrix[None]).to(weight)
        if weight.stride(1) == 0:  # one number for all rows
            return weight[:, :1, None] * (_squares(a) if _alone(a) else a.mT @ a)
        if _alone(a) and not bool((weight < 0).any()):
            return _squares(weight.sqrt()[:, :, None] * a)
        return (weight[:, :, None] * a).mT @ a

    @property
    def shared(self) -> bool:
        return self.matrix.ndim == 2

    def norm(self, x: Tensor) -> Scalar:
        return _norm(self.matrix, x)

    def take(self, index: Tensor, x: Tensor) -> Matrix:
        return self if self.shared else replace(self, matrix=self.matrix[index])


@OfTensor
@torch.no_grad()
def _norm(a: Tensor, x: Tensor) -> Scalar:
    if a.layout == torch.strided and min(a.shape[-2:]) <= _SMALL:
        return torch.linalg.matrix_norm(a.detach(), 2)
    return lanczos_norm(x, Matrix(a))


def _alone(a: Tensor) -> bool:  # (B, m, n)
    """Whether one is not too small for a call of its own."""
    return a.is_cpu and a.shape[1] * a.shape[2] > _ALONE


def _squares(R: Tensor) -> Tensor:  # (B, m, n) -> (B, n, n)
    """R* R in half the operations: NumPy sees that both are one matrix (syrk), torch does not."""
    squares = [torch.from_numpy(one.T @ one) for one in R.numpy()]
    return torch.stack(squares) if len(squares) > 1 else squares[0][None]
