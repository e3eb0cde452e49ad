"""Logistic regression with a learned weight, or one for each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from scipy.special import expit
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor
from torch.nn.functional import softplus

from ..problem import Problem
from ..solvers.base import Solver
from ..solvers.forms import DENSE
from ..solvers.newton import Newton
from ..terms.smooth import LeastSquares, Logistic
from .base import Tuned
from .designs import Batch, Data
from .search import Search


class LogisticRegressionHO(ClassifierMixin, Tuned):
    """sum log(1 + exp(-y (X w + b))) + 1/2 sum alpha_j w_j^2 for two classes: one alpha_ for all
    features, or one for each, found by the gradient of the held-out log-loss. C_ = 1 / alpha_.
    """

    centres = False
    _parameter_constraints = {**Tuned._parameter_constraints, "per_feature": ["boolean"]}

    def __init__(
        self,
        *,
        per_feature: bool = False,
        cv: Any = 5,
        fit_intercept: bool = True,
        max_iter: int = 50,
        tol: float = 1e-3,
    ) -> None:
        self.per_feature = per_feature
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter
        self.tol = tol

    def decision_function(self, X: Any) -> np.ndarray:
        return self._linear(X)[:, 0]

    def predict(self, X: Any) -> np.ndarray:
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    def predict_proba(self, X: Any) -> np.ndarray:
        chance = expit(self.decision_function(X))
        return np.stack([1 - chance, chance], 1)

    def predict_log_proba(self, X: Any) -> np.ndarray:
        score = self.decision_function(X)
        return -np.stack([np.logaddexp(0, score), np.logaddexp(0, -score)], 1)

    def _numbers(self, y: np.ndarray) -> np.ndarray:
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) != 2:
            many = "one class" if len(self.classes_) < 2 else f"{len(self.classes_)} classes"
            raise ValueError(
                f"Only binary classification is supported: LogisticRegressionHO got {many}. "
                "Wrap it as OneVsRestClassifier(LogisticRegressionHO()) for more than two."
            )
        return 2.0 * index - 1

    def _validated(self, X: Any, y: Any, sample_weight: Any) -> Data:
        data = super()._validated(X, y, sample_weight)
        if not self.fit_intercept:
            return data
        ones = np.ones((len(data.y), 1))
        if scipy.sparse.issparse(data.X):
            self._middle = np.zeros(data.X.shape[1])
            return Data(scipy.sparse.hstack([data.X, ones], "csc"), data.y, data.weight)
        self._middle = data.X.mean(0)  # columns far from 0 and that of ones are all but dependent
        return Data(np.hstack([data.X - self._middle, ones]), data.y, data.weight)

    def _energy(self, batch: Batch, target: Tensor, weights: Tensor) -> Problem:
        n = batch.mean.shape[1] - self.fit_intercept
        weight = weights.exp().expand(n)
        if self.fit_intercept:  # the column of ones is free
            weight = torch.cat([weight, weight.new_zeros(1)])
        data = Logistic(target, weight=batch.train.weight) @ batch.train.operator
        return data + weight * LeastSquares()

    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return softplus(-target * prediction)

    def _solver(self, batch: Batch) -> Solver | None:
        return Newton() if batch.mean.shape[1] <= DENSE else None

    def _search(self, search: Search, data: Data) -> None:
        search.scan(np.log([1e3]), -np.log([10.0]), 8, rises=2)
        if self.per_feature:
            search.spread(data.X.shape[1] - self.fit_intercept)
        search.descend(np.log(1e4), self.max_iter, self.tol)

    def _set(self, x: np.ndarray, intercept: float) -> None:
        n = len(x) - self.fit_intercept
        self.coef_ = x[None, :n]
        self.intercept_ = x[n:] - self.coef_ @ self._middle if self.fit_intercept else np.zeros(1)

    def _keep(self, best: np.ndarray, search: Search) -> None:
        self.alpha_ = np.exp(best) if self.per_feature else float(np.exp(best[0]))
        self.C_ = 1 / self.alpha_
        points = np.exp(np.stack(search.points))
        self.path_ = points if self.per_feature else points[:, 0]
        self.criterion_path_ = np.array(search.losses)
        self.n_iter_ = len(search.losses)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags
