"""Estimators for scikit-learn: its conventions, its models at the same weights, the gradients."""

import importlib
import sys

import numpy as np
import pytest
import scipy.sparse

sklearn = pytest.importorskip("sklearn")
pytest.importorskip("celer")

from sklearn import linear_model  # noqa: E402  (after importorskip)
from sklearn.base import clone  # noqa: E402
from sklearn.datasets import make_classification, make_regression  # noqa: E402
from sklearn.model_selection import ShuffleSplit  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

import bilevel as bl  # noqa: E402
import bilevel.sklearn as ours  # noqa: E402
from bilevel.sklearn import regression  # noqa: E402

X, Y = make_regression(60, 100, n_informative=8, noise=5.0, random_state=0)
XC, YC = make_classification(120, 12, random_state=0)
REGRESSORS = [ours.LassoHO, ours.ElasticNetHO, ours.WeightedLassoHO, ours.RidgeHO]


def test_it_is_a_room_of_bilevel(monkeypatch):
    assert bl.sklearn is ours
    with pytest.raises(AttributeError, match="no attribute 'sklaern'"):
        _ = bl.sklaern
    monkeypatch.setitem(sys.modules, "sklearn", None)  # not installed
    with pytest.raises(ImportError, match=r"needs scikit-learn: pip install 'bilevel\[sklearn\]'"):
        importlib.reload(ours)


@pytest.mark.parametrize("estimator", [*REGRESSORS, ours.LogisticRegressionHO])
@pytest.mark.filterwarnings("ignore")  # the checks warn of what they skip, and of small splits
def test_conventions(estimator, monkeypatch):
    """Which hold however far the search goes: nearly unregularised models are slow."""
    monkeypatch.setattr(regression, "_LOOKS", 2)
    monkeypatch.setattr(regression, "_REACH", 1.0)
    check_estimator(estimator(max_iter=1, cv=2), on_skip=None)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_models_of_scikit_learn(fit_intercept, weighted):
    """At the weights that were found."""
    weight = np.linspace(0.5, 2, len(Y)) if weighted else None
    cv = ShuffleSplit(1, random_state=0)
    common = dict(fit_intercept=fit_intercept, tol=1e-10, max_iter=100_000)
    lasso = ours.LassoHO(cv=cv, fit_intercept=fit_intercept).fit(X, Y, weight)
    net = ours.ElasticNetHO(cv=cv, fit_intercept=fit_intercept).fit(X, Y, weight)
    ridge = ours.RidgeHO(cv=cv, fit_intercept=fit_intercept).fit(X, Y, weight)
    theirs = [
        linear_model.Lasso(lasso.alpha_, **common),
        linear_model.ElasticNet(net.alpha_, l1_ratio=net.l1_ratio_, **common),
        linear_model.Ridge(ridge.alpha_, fit_intercept=fit_intercept, tol=1e-10),
    ]
    for mine, other in zip((lasso, net, ridge), theirs, strict=True):
        other.fit(X, Y, weight)
        np.testing.assert_allclose(mine.coef_, other.coef_, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(mine.predict(X), other.predict(X), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("per_feature", [False, True])
def test_logistic(per_feature):
    mine = ours.LogisticRegressionHO(per_feature=per_feature, max_iter=10).fit(XC, YC)
    scale = 1 / np.sqrt(mine.alpha_ * np.ones(XC.shape[1]))  # a weight is a scale of its column
    other = linear_model.LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000)
    other.fit(XC * scale, YC)
    np.testing.assert_allclose(mine.coef_, other.coef_ * scale, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        mine.predict_proba(XC), other.predict_proba(XC * scale), rtol=1e-4, atol=1e-5
    )
    assert (mine.predict(XC) == other.predict(XC * scale)).all()
    np.testing.assert_allclose(np.exp(mine.predict_log_proba(XC)), mine.predict_proba(XC))


@pytest.mark.parametrize("estimator", [ours.LassoHO, ours.RidgeHO, ours.LogisticRegressionHO])
def test_sparse_is_dense(estimator):
    target = Y if estimator is not ours.LogisticRegressionHO else Y > 0
    design = np.where(np.abs(X) > 0.8, X, 0.0)
    dense = estimator().fit(design, target)
    sparse = estimator().fit(scipy.sparse.csr_array(design), target)
    np.testing.assert_allclose(sparse.alpha_, dense.alpha_, rtol=1e-4)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, rtol=1e-3, atol=1e-4)


def test_indices_of_64_bits():
    """As SciPy keeps them of arrays that are made by hand."""
    rows, columns = (index.astype(np.int64) for index in np.nonzero(X > 0.5))
    design = scipy.sparse.csr_array((X[rows, columns], (rows, columns)), shape=X.shape)
    model = ours.LassoHO(cv=3).fit(design, Y)
    assert design.indices.dtype == np.int64  # X is left as it was
    assert np.allclose(model.coef_, ours.LassoHO(cv=3).fit(design.toarray(), Y).coef_)


@pytest.mark.parametrize(
    ("cv", "what"), [(3, "train on"), ([(np.arange(40), np.arange(40, 60))], "hold out")]
)
def test_splits_without_a_row_that_counts(cv, what):
    weight = np.zeros(len(Y))
    weight[:20] = 1
    with pytest.raises(ValueError, match=f"split 0 .* no row with a weight to {what}: 20 of 60"):
        ours.LassoHO(cv=cv).fit(X, Y, weight)


def test_no_worse_than_a_grid():
    cv = ShuffleSplit(3, random_state=1)
    grid = linear_model.LassoCV(cv=cv, alphas=100).fit(X, Y)
    lasso = ours.LassoHO(cv=cv).fit(X, Y)
    assert lasso.criterion_path_.min() <= 1.01 * grid.mse_path_.mean(1).min()
    assert lasso.path_.shape == lasso.criterion_path_.shape == (lasso.n_iter_,)


def test_a_weight_for_each_feature_lowers_the_criterion():
    lasso, weighted = ours.LassoHO().fit(X, Y), ours.WeightedLassoHO(max_iter=10).fit(X, Y)
    assert weighted.criterion_path_.min() < 0.9 * lasso.criterion_path_.min()
    assert weighted.alpha_.shape == (100,) and weighted.path_.shape[1] == 100


def test_sure():
    """Needs no held-out rows, and predicts the clean values about as well."""
    truth = X[:, :3] @ [40.0, -30.0, 20.0]
    noisy = truth + 5 * np.random.default_rng(0).standard_normal(len(truth))
    lasso = ours.LassoHO(noise_std=5.0).fit(X, noisy)
    error = ((lasso.predict(X) - truth) ** 2).mean()
    alphas = lasso.alpha_ * np.geomspace(0.1, 10, 21)
    best = min(
        ((linear_model.Lasso(a).fit(X, noisy).predict(X) - truth) ** 2).mean() for a in alphas
    )
    assert error < 1.5 * best


def test_the_noise_of_sure_is_drawn_as_scikit_learn_draws():
    """random_state: a number, None, or a generator, the same probes at all weights."""
    fits = [
        ours.RidgeHO(noise_std=5.0, random_state=state).fit(X, Y)
        for state in (1, np.random.RandomState(1), None)
    ]
    assert fits[0].alpha_ == fits[1].alpha_ and fits[2].alpha_ > 0


@pytest.mark.parametrize(
    "wrong",
    [{"max_iter": -1}, {"tol": "small"}, {"noise_std": 0.0}, {"cv": "five"}, {"per_feature": 2}],
)
def test_parameters_are_checked_as_by_scikit_learn(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"The '{name}' parameter of RidgeHO must be"):
        ours.RidgeHO(**wrong).fit(X, Y)


@pytest.mark.filterwarnings("error")
def test_probabilities_far_from_the_boundary():
    model = ours.LogisticRegressionHO(cv=3).fit(XC, YC)
    far = model.predict_proba(1e6 * XC)
    assert np.allclose(far.max(1), 1.0) and np.allclose(far.sum(1), 1.0)


def test_in_a_pipeline():
    pipeline = make_pipeline(StandardScaler(), ours.LassoHO(cv=3))
    assert clone(pipeline).fit(X, Y).score(X, Y) > 0.9


def test_more_than_two_classes():
    with pytest.raises(ValueError, match="got 3 classes. Wrap it as OneVsRestClassifier"):
        ours.LogisticRegressionHO().fit(XC, np.arange(len(YC)) % 3)


@pytest.mark.parametrize("estimator", REGRESSORS)
def test_units_play_no_part(estimator):
    """Neither the origin of X and y, nor their scales."""
    design, target = X[:, :8], Y - Y.mean()
    model = estimator(cv=3).fit(design, target)
    moved = estimator(cv=3).fit(1e-4 * design + 10, 1e6 * target + 1e3)
    close = dict(rtol=1e-4, atol=1e-4)  # solves end at 1e-8 of the energy, its root in w
    np.testing.assert_allclose(1e-10 * moved.coef_, model.coef_, **close)
    constant = estimator(cv=3).fit(design, np.full(len(Y), 0.1))
    assert constant.intercept_ == 0.1 and not constant.coef_.any()
    with pytest.raises(ValueError, match="could not convert string to float"):
        estimator().fit(design, np.where(Y > 0, "ham", "spam"))


def test_a_classifier_far_from_the_origin():
    model = ours.LogisticRegressionHO(cv=3).fit(XC, YC)
    moved = ours.LogisticRegressionHO(cv=3).fit(XC + 1e4, YC)
    np.testing.assert_allclose(moved.coef_, model.coef_, rtol=1e-6)
    np.testing.assert_allclose(moved.predict_proba(XC + 1e4), model.predict_proba(XC), rtol=1e-6)
