"""What the estimators share: data in, a search over the weights, a fit on all rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.model_selection import check_cv
from sklearn.utils._param_validation import Interval
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from torch import Tensor

from ..argmin import argmin
from ..differentiation.implicit import FixedPoint
from ..problem import Problem
from ..solvers.base import Solver
from .designs import Batch, Data, batches
from .search import Search


@dataclass(frozen=True, eq=False)
class _Known:
    """The models at some weights, where those of weights near by start."""

    weights: Tensor
    solutions: list[Tensor]  # a batch each
    loss: float


class Tuned(BaseEstimator):
    """A linear model whose weights of regularisation minimise a criterion, found by its gradient:
    first a scan of a few values, then L-BFGS on their logarithms, then the model of all rows.

    A subclass says what its energy is, where the search begins and how an error is counted.
    """

    centres = True  # an intercept is a mean taken off; else it is a column of ones
    _parameter_constraints = {
        "cv": ["cv_object"],
        "fit_intercept": ["boolean"],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
    }

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        """Find the weights, then the model of all rows."""
        self._validate_params()
        data = self._validated(X, y, sample_weight)
        search = Search(self._criterion(data))
        self._search(search, data)
        self._keep(search.best, search)
        everything = np.arange(len(data.y)), np.arange(0)
        whole = self._batches(data, [everything])[0]
        with torch.no_grad():
            x = self._solution(whole, torch.from_numpy(search.best), None)
        self._set(x[0].numpy(), float(whole.intercept(x)))
        return self

    @abstractmethod
    def _energy(self, batch: Batch, target: Tensor, weights: Tensor) -> Problem:
        """The lower level at the logarithms of its weights."""

    @abstractmethod
    def _solver(self, batch: Batch) -> Solver | None: ...

    @abstractmethod
    def _search(self, search: Search, data: Data) -> None: ...

    @abstractmethod
    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One number a row."""

    @abstractmethod
    def _keep(self, best: np.ndarray, search: Search) -> None:
        """Set alpha_ and path_."""

    def _set(self, x: np.ndarray, intercept: float) -> None:
        self.coef_, self.intercept_ = x, intercept

    def _numbers(self, y: np.ndarray) -> np.ndarray:
        return y.astype(np.float64)

    def _validated(self, X: Any, y: Any, sample_weight: Any) -> Data:
        X, y = validate_data(
            self, X, y, accept_sparse="csc", dtype=np.float64, ensure_min_samples=2,
            y_numeric=self.centres,
        )  # fmt: skip
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        return Data(X, self._numbers(y), weight)

    def _splits(self, data: Data) -> Sequence[tuple[np.ndarray, np.ndarray]]:
        """Without the rows of weight 0, which would still count as rows."""
        cv: Any = check_cv(self.cv, data.y, classifier=not self.centres)  # type: ignore[attr-defined]
        used = data.weight > 0
        splits = [
            (train[used[train]], test[used[test]]) for train, test in cv.split(data.X, data.y)
        ]
        empty = [k for k, (train, test) in enumerate(splits) if not (len(train) and len(test))]
        if empty:
            raise ValueError(
                f"split {empty[0]} of cv has no row with a weight to "
                f"{'hold out' if len(splits[empty[0]][0]) else 'train on'}: {int(used.sum())} of "
                f"{len(used)} rows have one. Pass a shuffled cv, KFold(5, shuffle=True), or leave "
                "the others out."
            )
        return splits

    def _batches(self, data: Data, splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Batch]:
        return batches(data, splits, self.centres and self.fit_intercept, self.centres)  # type: ignore[attr-defined]

    def _criterion(self, data: Data) -> Any:
        """The mean error on the rows held out, of all splits, as a function of the weights."""
        held = self._batches(data, self._splits(data))
        known: list[_Known] = []  # the last, and the best

        def criterion(weights: Tensor) -> Tensor:
            here = weights.detach()
            near = min(known, key=lambda k: float((k.weights - here).norm()), default=None)
            starts = near.solutions if near else [None] * len(held)
            found = [self._solution(b, weights, x) for b, x in zip(held, starts, strict=True)]
            loss = torch.cat(
                [self._held_out(b, x) for b, x in zip(held, found, strict=True)]
            ).mean()
            last = _Known(here, [x.detach() for x in found], loss.item())
            known[:] = [last, min([*known, last], key=lambda k: k.loss)]
            return loss

        return criterion

    def _held_out(self, batch: Batch, x: Tensor) -> Tensor:  # -> (B,)
        error, share = self._error(batch.held_out(x), batch.held.target), batch.held.weight  # type: ignore[union-attr]
        return (share * error).sum(1) / share.sum(1)

    def _solution(self, batch: Batch, weights: Tensor, start: Tensor | None) -> Tensor:
        return self._solved(batch, batch.train.target, weights, start)

    def _solved(
        self, batch: Batch, target: Tensor, weights: Tensor, start: Tensor | None
    ) -> Tensor:  # (B, n)
        x0 = torch.zeros_like(batch.mean) if start is None else start
        energy = self._energy(batch, target, weights)
        strategy = FixedPoint(order=1)  # a Newton step's factor is the derivative's, too
        return argmin(energy, x0=x0, solver=self._solver(batch), diff=strategy, on_fail="warn")

    def _linear(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=["csc", "csr"], dtype=np.float64, reset=False)
        return safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
