"""Matrices, dense, sparse, or one a sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from .._broadcast import Scalar
from .base import Operator, lanczos_norm

_SMALL = 256  # up to here the exact spectral norm costs less than a Lanczos run
_ALONE = 10_000  # entries from which one product a sample is faster than a batch of them
_NORMS = WeakTensorKeyDictionary()  # of matrices in use: (version, |A|)


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
        """A* diag(weight) A, of a dense matrix, in the weight's dtype: R* R, R = sqrt(weight) A, in
        half the operations, where one is not too small for a call of its own."""
        a = (self.matrix if self.matrix.ndim == 3 else self.matrix[None]).to(weight)
        if weight.stride(1) == 0:  # one number for all rows
            return weight[:, :1, None] * (a.mT @ a)
        alone = a.is_cpu and a[0].numel() > _ALONE and not bool((weight < 0).any())
        if not alone:
            return (weight[:, :, None] * a).mT @ a
        return torch.stack([_square(root) for root in weight.sqrt()[:, :, None] * a])

    @property
    def shared(self) -> bool:
        return self.matrix.ndim == 2

    @torch.no_grad()
    def norm(self, x: Tensor) -> Scalar:
        """That of a matrix which solves share, as in learning, is worked out once."""
        a = self.matrix
        if a.is_inference():
            return self._norm(x)
        version, norm = _NORMS.get(a) or (None, 0.0)
        if version != a._version:
            norm = self._norm(x)
            _NORMS[a] = a._version, norm
        return norm

    def _norm(self, x: Tensor) -> Scalar:
        if self.matrix.layout == torch.strided and min(self.matrix.shape[-2:]) <= _SMALL:
            return torch.linalg.matrix_norm(self.matrix.detach(), 2)
        return lanczos_norm(x, self)

    def take(self, index: Tensor, x: Tensor) -> Matrix:
        return self if self.shared else replace(self, matrix=self.matrix[index])


def _square(R: Tensor) -> Tensor:
    """R* R: NumPy sees that both are one matrix (syrk), torch does not."""
    one = R.numpy()
    return torch.from_numpy(one.T @ one)
