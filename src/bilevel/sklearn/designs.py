"""Training sets and held-out rows as batches of linear models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..operators.sparse_matrix import SparseMatrix

Split = tuple[np.ndarray, np.ndarray]  # rows to train on, rows held out


@dataclass(frozen=True)
class Data:
    X: Any  # (m, n): an array, or sparse, CSC
    y: np.ndarray  # (m,)
    weight: np.ndarray  # (m,), >= 0: of the rows

    def rows(self, index: np.ndarray) -> Data:
        return Data(self.X[index], self.y[index], self.weight[index])

    def moments(self, centre: bool) -> tuple[np.ndarray, float]:
        """The weighted means of X and y; zeros without an intercept."""
        n = self.X.shape[1]
        if not centre:
            return np.zeros(n), 0.0
        share, first = self.weight / self.weight.sum(), self.y[0]
        return np.asarray(self.X.T @ share), float(first + (self.y - first) @ share)


@dataclass(frozen=True)
class Rows:
    """Designs of a batch of row sets: A (B, m, n), padded by rows of zeros and of weight zero."""

    operator: Operator
    target: Tensor  # (B, m)
    weight: Tensor  # (B, m); 1 for all where it has gone into A and the target


@dataclass(frozen=True)
class Batch:
    """Models that are solved at once, one a split; of sparse designs one alone."""

    train: Rows
    held: Rows | None  # not centred; None: nothing is held out
    mean: Tensor  # (B, n)
    offset: Tensor  # (B, 1)
    total: Tensor  # (B, 1): the sum of the weights of the training rows

    def held_out(self, x: Tensor) -> Tensor:  # (B, n) -> (B, rows held out)
        """Predictions for the rows held out."""
        assert self.held is not None
        return self.held.operator(x) + self.intercept(x)

    def intercept(self, x: Tensor) -> Tensor:  # (B, n) -> (B, 1)
        return self.offset - (self.mean * x).sum(1, keepdim=True)


def batches(data: Data, splits: Sequence[Split], centre: bool, squares: bool) -> list[Batch]:
    """The splits as batches: all of them in one, or one each where X is sparse.

    centre: the means are taken off, which stands for an intercept in least squares. squares: the
    weights of dense rows may go into the rows.
    """
    if scipy.sparse.issparse(data.X):
        return [_sparse(data, split, centre) for split in splits]
    return [_dense(data, splits, centre, squares)]


def _sparse(data: Data, split: Split, centre: bool) -> Batch:
    train = data.rows(split[0])
    mean, offset = train.moments(centre)
    rows = _sparse_rows(train, mean if centre else None, offset)
    held = _sparse_rows(data.rows(split[1]), None, 0.0) if len(split[1]) else None
    total = torch.tensor([[train.weight.sum()]])
    return Batch(rows, held, _row(mean), torch.tensor([[offset]]), total)


def _sparse_rows(data: Data, mean: np.ndarray | None, offset: float) -> Rows:
    return Rows(SparseMatrix(data.X, mean), _row(data.y - offset), _row(data.weight))


def _dense(data: Data, splits: Sequence[Split], centre: bool, squares: bool) -> Batch:
    training = [data.rows(train) for train, _ in splits]
    moments = [part.moments(centre) for part in training]
    means, offsets = (np.array(parts) for parts in zip(*moments, strict=True))
    train = _padded(training, means, offsets, squares)
    held = [data.rows(index) for _, index in splits]
    nothing = any(len(part.y) == 0 for part in held)
    return Batch(
        train,
        None if nothing else _padded(held, 0 * means, 0 * offsets, False),
        torch.from_numpy(means),
        torch.from_numpy(offsets)[:, None],
        torch.tensor([[part.weight.sum()] for part in training]),
    )


def _padded(parts: list[Data], means: np.ndarray, offsets: np.ndarray, squares: bool) -> Rows:
    """Stored by columns, as coordinate descent reads them."""
    m, n = max(len(part.y) for part in parts), parts[0].X.shape[1]
    A, weight = np.zeros((len(parts), n, m)), np.zeros((len(parts), m))
    target = np.zeros_like(weight) if squares else np.ones_like(weight)  # a label, not used
    for b, (part, mean, offset) in enumerate(zip(parts, means, offsets, strict=True)):
        root = np.sqrt(part.weight) if squares else np.ones_like(part.weight)
        columns = A[b, :, : len(part.y)]
        columns[:] = part.X.T
        if mean.any():
            columns -= mean[:, None]
        if not (root == 1).all():
            columns *= root
        target[b, : len(part.y)] = (part.y - offset) * root
        weight[b, : len(part.y)] = part.weight
    if squares:
        weight = np.ones((1, 1))
    matrix = torch.from_numpy(A).mT
    return Rows(Matrix(matrix), torch.from_numpy(target), torch.from_numpy(weight))


def _row(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=float))[None]
