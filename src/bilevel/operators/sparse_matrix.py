"""A constant sparse matrix, its products by SciPy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .adapters import Map, linear
from .base import Operator


@dataclass(frozen=True, eq=False)
class SparseMatrix(Operator):
    """x -> A x - <mean, x> for x (B, n), A (m, n) a sparse array of SciPy's: constant, on the CPU.

    Differentiable in x to every order. With the mean of A's columns the operator is that of the
    centred columns, without becoming dense. Some ten times faster than a sparse tensor in Matrix,
    which is for matrices that are learned.
    """

    matrix: Any  # (m, n); kept as CSC, by columns
    mean: np.ndarray | None = None  # (n,): taken off every row

    def __post_init__(self) -> None:
        from scipy import sparse  # not with `import bilevel`

        if not sparse.issparse(self.matrix):
            raise TypeError(
                "SparseMatrix needs a sparse array of scipy.sparse, got "
                f"{type(self.matrix).__name__}. A tensor or a dense array goes into Matrix."
            )
        kept: Any = sparse.csc_array(self.matrix)
        if kept.dtype.kind in "biu":
            kept = kept.astype(np.float64)
        if not np.isfinite(kept.data).all():
            raise ValueError(
                f"SparseMatrix is NaN or inf in {int((~np.isfinite(kept.data)).sum())} of "
                f"{kept.nnz} values. Clean the data."
            )
        if kept.indices.dtype != np.int32 and max(kept.nnz, *self.matrix.shape) < 2**31:
            places = kept.indices.astype(np.int32), kept.indptr.astype(np.int32)  # others refuse 64
            kept = sparse.csc_array((kept.data, *places), shape=kept.shape)
        object.__setattr__(self, "matrix", kept)
        if self.mean is not None and np.shape(self.mean) != self.matrix.shape[1:]:
            raise ValueError(
                f"SparseMatrix of shape {self.matrix.shape} needs a mean of shape "
                f"{self.matrix.shape[1:]}, one number a column, got {np.shape(self.mean)}."
            )

    def __call__(self, x: Tensor) -> Tensor:  # (B, n) -> (B, m)
        return self._apply(x, "x", 1, self._product, self._adjoint)

    def adjoint(self, y: Tensor) -> Tensor:  # (B, m) -> (B, n)
        return self._apply(y, "y", 0, self._adjoint, self._product)

    def rest(self, x: Tensor) -> Tensor:
        self._check(x, "x", 1)
        return x.new_zeros(len(x), self.matrix.shape[0])

    def _apply(self, x: Tensor, name: str, axis: int, forth: Map, back: Map) -> Tensor:
        self._check(x, name, axis)
        return linear(x, forth, back)

    def _check(self, x: Tensor, name: str, axis: int) -> None:
        if x.ndim != 2 or x.shape[1] != self.matrix.shape[axis]:
            raise ValueError(
                f"SparseMatrix of shape {self.matrix.shape} needs {name} of shape "
                f"(B, {self.matrix.shape[axis]}), got {tuple(x.shape)}. For one problem pass "
                f"{name}[None]: dim 0 is the batch."
            )

    @cached_property
    def _transposed(self) -> Any:  # a view
        return self.matrix.T

    def _product(self, x: Tensor) -> Tensor:
        array = x.detach().numpy()
        image = _rows(self.matrix, array)
        return _like(image if self.mean is None else image - (array @ self.mean)[:, None], array)

    def _adjoint(self, y: Tensor) -> Tensor:
        array = y.detach().numpy()
        image = _rows(self._transposed, array)
        if self.mean is not None:
            image = image - array.sum(1, keepdims=True) * self.mean
        return _like(image, array)

    def columns(self, index: Tensor) -> SparseMatrix:
        """The operator of some of the unknowns."""
        chosen = index.numpy()
        mean = None if self.mean is None else self.mean[chosen]
        return SparseMatrix(self.matrix[:, chosen], mean)

    def gram(self, weight: Tensor) -> Tensor:  # (B or 1, m) -> (B or 1, n, n)
        """A* diag(weight) A, dense, in the weight's dtype."""
        return torch.stack([self._gram(row.numpy()) for row in weight.detach()]).to(weight)

    def _gram(self, weight: np.ndarray) -> Tensor:
        weighted = self.matrix.multiply(weight[:, None]).tocsc()
        gram = (self._transposed @ weighted).toarray()
        if self.mean is not None:
            column = weighted.sum(0)
            gram -= np.outer(self.mean, column) + np.outer(column, self.mean)
            gram += weight.sum() * np.outer(self.mean, self.mean)
        return torch.from_numpy(gram)


def _like(image: np.ndarray, rows: np.ndarray) -> Tensor:
    """The image in the precision of what it is of."""
    real = not np.iscomplexobj(image)
    return torch.from_numpy(image.astype(rows.dtype, copy=False) if real else image)


def _rows(matrix: Any, rows: np.ndarray) -> np.ndarray:
    """matrix @ row for each; one alone is three times faster as a vector."""
    return (matrix @ rows[0])[None] if len(rows) == 1 else np.ascontiguousarray((matrix @ rows.T).T)
