"""A whole search of the lasso's weight on one held-out set: sparho's, and LassoHO's."""

import numpy as np
import scipy.sparse
from measure import compared, processor_seconds
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import PredefinedSplit

import bilevel.sklearn as bls


def full_searches() -> list[dict]:
    """A third of the rows to train on, one to choose the weight by, one that no search sees."""
    generator = np.random.default_rng(0)
    X = generator.standard_normal((1500, 2000))
    rows = _search("a search, 500 x 2000", X, 1.0, generator)
    X = scipy.sparse.random(15_000, 50_000, 1e-3, "csr", rng=generator)
    return rows + _search("a search, 5000 x 50000", X, 0.1, generator)


def _search(name: str, X, noise: float, generator) -> list[dict]:
    m, n = X.shape
    truth = np.zeros(n)
    truth[:100] = generator.standard_normal(100)
    y = X @ truth + noise * generator.standard_normal(m)
    both = 2 * m // 3
    X_seen, y_seen = X[:both], y[:both]
    X_seen = scipy.sparse.csc_matrix(X_seen) if scipy.sparse.issparse(X) else X_seen
    parts = np.where(np.arange(both) < m // 3, -1, 0)  # -1: never held out
    ours = bls.LassoHO(cv=PredefinedSplit(parts), fit_intercept=False)

    def search() -> np.ndarray:
        return ours.fit(X_seen, y_seen).coef_

    def row(what: str, found: np.ndarray) -> dict:
        loss = float(mean_squared_error(y[both:], X[both:] @ found))
        return {"problem": name, "what": what, "test loss": loss}

    try:
        import sparho
        from sparho.adapters.celer import CelerLasso
    except ImportError:
        print("sparho is absent")
        return [row("LassoHO", search()) | {"ms": 1e3 * processor_seconds(search, 2.0)}]
    split = sparho.HeldOutMSE(np.flatnonzero(parts < 0), np.flatnonzero(parts == 0))
    problem = sparho.Problem(sparho.SquaredLoss(), sparho.L1(), X_seen, y_seen)
    largest = np.abs(X_seen.T @ y_seen).max() / both

    def theirs() -> np.ndarray:
        options = {"solver": CelerLasso(tol=1e-6), "criterion": split, "n_iter": 10}
        return sparho.hoag_search(problem, largest / 5, **options).best_coef  # of all rows

    (side_by_side,) = compared(name, search, {"sparho, 10 steps": theirs})
    peer = side_by_side | row("sparho, 10 steps", theirs())
    return [peer, row("LassoHO", search())]
