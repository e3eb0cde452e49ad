"""Least squares with penalties: ridge, lasso, elastic net, a weight for each feature."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.base import RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval
from torch import Tensor

from ..learning.risk import sure
from ..problem import Problem
from ..solvers.base import Solver
from ..solvers.celer import Celer
from ..solvers.forms import DENSE
from ..solvers.newton import Newton
from ..terms.norms import L1, ElasticNet
from ..terms.smooth import LeastSquares
from .base import Tuned
from .designs import Batch, Data
from .search import Search

_REACH = np.log(1e3)  # how far the descent may go from where it begins
_RATIO, _LOOKS = 3.0, 8  # of neighbours in a scan; at most


class _Regressor(RegressorMixin, Tuned):
    """1 / 2m |y - X w - b|^2 + penalty, in scikit-learn's scale.

    cv: splits, as scikit-learn's; one split, ShuffleSplit(1), is a held-out set. noise_std: where
    the standard deviation of the noise in y is known, Stein's unbiased estimate of the error of
    the fit (`bilevel.sure`) takes the place of held-out rows.
    """

    _parameter_constraints = {
        **Tuned._parameter_constraints,
        "noise_std": [None, Interval(Real, 0, None, closed="neither")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        cv: Any = 5,
        noise_std: float | None = None,
        fit_intercept: bool = True,
        max_iter: int = 50,
        tol: float = 1e-3,
        random_state: Any = 0,
    ) -> None:
        self.cv = cv
        self.noise_std = noise_std  # of y; then there are no splits
        self.fit_intercept = fit_intercept
        self.max_iter = max_iter  # of the search
        self.tol = tol  # relative decrease of the criterion at which the search ends
        self.random_state = random_state  # of the probes of the noise

    def predict(self, X: Any) -> np.ndarray:
        return self._linear(X)

    def _error(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (prediction - target).square()

    def _misfit(self, batch: Batch, target: Tensor) -> Any:
        data = LeastSquares(target, weight=batch.train.weight / batch.total)
        return data @ batch.train.operator

    def _criterion(self, data: Data) -> Any:
        if self.noise_std is None:
            return super()._criterion(data)
        everything = np.arange(len(data.y)), np.arange(0)
        (batch,) = self._batches(data, [everything])
        seed = check_random_state(self.random_state).randint(2**31 - 1)  # the same at all weights

        def criterion(weights: Tensor) -> Tensor:
            def fitted(target: Tensor) -> Tensor:
                return batch.train.operator(self._solved(batch, target, weights, None))

            generator = torch.Generator().manual_seed(seed)
            return sure(fitted, batch.train.target, self.noise_std, generator=generator)[0]  # type: ignore[arg-type]

        return criterion

    def _largest(self, data: Data) -> float:
        """The weight of the lasso of all rows beyond which its solution is 0."""
        mean, offset = data.moments(self.fit_intercept)
        residual = data.weight * (data.y - offset)
        slope = np.abs(data.X.T @ residual - mean * residual.sum()).max() / data.weight.sum()
        return float(slope) or 1.0

    def _variances(self, data: Data) -> tuple[float, float]:
        """Of X, the mean of its columns', and of y; 1 where nothing varies."""
        mean, offset = data.moments(self.fit_intercept)
        share = data.weight / data.weight.sum()
        squares = data.X.multiply(data.X) if hasattr(data.X, "multiply") else data.X**2
        of_X = (share @ np.asarray(squares.sum(1)).ravel() - mean @ mean) / len(mean)
        return max(of_X, 0.0) or 1.0, float(share @ (data.y - offset) ** 2) or 1.0

    def _keep(self, best: np.ndarray, search: Search) -> None:
        self.alpha_ = np.exp(best) if len(best) > 1 else float(np.exp(best[0]))
        points = np.exp(np.stack(search.points))
        self.path_ = points if points.shape[1] > 1 else points[:, 0]
        self.criterion_path_ = np.array(search.losses)
        self.n_iter_ = len(search.losses)


class _Sparse(_Regressor):
    def _solver(self, batch: Batch) -> Solver:
        return Celer()

    def _search(self, search: Search, data: Data) -> None:
        largest = self._largest(data)
        step = -np.log([_RATIO])
        search.scan(np.log([largest / 2]), step, _LOOKS, rises=1)
        search.refine(step / 2)
        search.descend(_REACH, self.max_iter, self.tol)


class LassoHO(_Sparse):
    """The lasso, 1 / 2m |y - X w - b|^2 + alpha |w|_1, its alpha_ found by gradient.

    path_: every alpha that was looked at, criterion_path_: what was found there.

    [1] Bertrand, Klopfenstein, Blondel, Vaiter, Gramfort, Salmon. Implicit differentiation of
        lasso-type models for hyperparameter optimization. ICML 2020.
    """

    def _energy(self, batch: Batch, target: Tensor, weights: Tensor) -> Problem:
        return self._misfit(batch, target) + weights.exp() * L1()


class WeightedLassoHO(LassoHO):
    """1 / 2m |y - X w - b|^2 + sum alpha_j |w_j|: a weight for each feature, found by gradient from
    the best common one.

    As many weights as features can fit what is held out: judge the model by rows that neither saw.
    """

    def _search(self, search: Search, data: Data) -> None:
        super()._search(search, data)
        search.spread(data.X.shape[1])
        search.descend(_REACH, self.max_iter, self.tol)


class ElasticNetHO(_Sparse):
    """1 / 2m |y - X w - b|^2 + alpha (l1_ratio |w|_1 + (1 - l1_ratio) / 2 |w|^2), alpha_ and
    l1_ratio_ found by gradient. path_ has a column for each.
    """

    def _energy(self, batch: Batch, target: Tensor, weights: Tensor) -> Problem:
        alpha, ratio = _alpha_and_ratio(weights.exp())
        return self._misfit(batch, target) + alpha * ElasticNet(ratio)

    def _search(self, search: Search, data: Data) -> None:
        largest, (of_X, of_y) = self._largest(data), self._variances(data)
        step = -np.log([_RATIO, _RATIO])
        for share in (0.1, 1.0):
            ridge = share * largest * np.sqrt(of_X / of_y)  # in the unit of X' X
            search.scan(np.log([largest / 2, ridge / 2]), step, _LOOKS, rises=1)
        search.refine(step / 2)
        search.descend(_REACH, self.max_iter, self.tol)

    def _keep(self, best: np.ndarray, search: Search) -> None:
        super()._keep(best, search)
        self.alpha_, self.l1_ratio_ = (float(v) for v in _alpha_and_ratio(np.exp(best)))
        self.path_ = np.stack(_alpha_and_ratio(self.path_.T), 1)


def _alpha_and_ratio(weights: Any) -> tuple[Any, Any]:
    """From the weights of |w|_1 and of |w|^2 / 2."""
    l1, l2 = weights
    return l1 + l2, l1 / (l1 + l2)


class RidgeHO(_Regressor):
    """|y - X w - b|^2 + sum alpha_j w_j^2: one alpha_ for all features, or one for each, found by
    gradient.
    """

    _parameter_constraints = {**_Regressor._parameter_constraints, "per_feature": ["boolean"]}

    def __init__(
        self,
        *,
        per_feature: bool = False,
        cv: Any = 5,
        noise_std: float | None = None,
        fit_intercept: bool = True,
        max_iter: int = 50,
        tol: float = 1e-3,
        random_state: Any = 0,
    ) -> None:
        super().__init__(
            cv=cv, noise_std=noise_std, fit_intercept=fit_intercept, max_iter=max_iter, tol=tol,
            random_state=random_state,
        )  # fmt: skip
        self.per_feature = per_feature

    def _energy(self, batch: Batch, target: Tensor, weights: Tensor) -> Problem:
        penalty = (weights.exp() / batch.total) * LeastSquares()
        return self._misfit(batch, target) + penalty

    def _solver(self, batch: Batch) -> Solver | None:
        return Newton() if batch.mean.shape[1] <= DENSE else None

    def _search(self, search: Search, data: Data) -> None:
        n = data.X.shape[1]
        size = self._variances(data)[0] * data.weight.sum()  # the mean eigenvalue of X' X
        search.scan(np.log([10.0 * size]), -np.log([10.0]), 7, rises=2)
        if self.per_feature:
            search.spread(n)
        search.descend(np.log(1e6), self.max_iter, self.tol)
