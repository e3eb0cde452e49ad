"""Logistic regression with a weight for each feature: value and gradient of a held-out loss."""

from collections.abc import Callable

import numpy as np
import torch
from measure import compared
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.sparse.linalg import LinearOperator, cg
from scipy.special import expit
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import softplus

import bilevel as bl

TOL = 1e-8
Call = Callable[[], np.ndarray | Tensor]


def logistic() -> list[dict]:
    X, y = load_digits(return_X_y=True)
    X, y, half = X / 16, 2.0 * (y % 2) - 1, np.arange(len(X)) % 2 == 0
    by_newton = {"solver": bl.Newton(), "diff": bl.FixedPoint(order=1)}
    found = _side_by_side("digits, 899 x 64", X, y, half, by_newton, newton_by_hand)
    generator = np.random.default_rng(0)
    X = generator.standard_normal((5000, 2000))
    y = np.where(X[:, :100].sum(1) + 5 * generator.standard_normal(5000) > 0, 1.0, -1.0)
    half = np.arange(5000) < 2500
    by_gradients = {
        "solver": bl.GradientDescent(), "acceleration": bl.LBFGS(), "diff": bl.Implicit(order=1)
    }  # fmt: skip
    return found + _side_by_side("logistic 2500 x 2000", X, y, half, by_gradients, by_scipy)


def _side_by_side(name: str, X, y, half, options: dict, peer: Callable) -> list[dict]:
    parts = X[half], y[half], X[~half], y[~half]
    logs = np.full(X.shape[1], np.log(1e-2))
    ours, theirs = _ours(*parts, logs, options), lambda: peer(*parts, logs)
    rows, found, other = compared(name, ours, {peer.__name__: theirs}), ours().numpy(), theirs()
    rows[0]["difference"] = float(np.linalg.norm(found - other) / np.linalg.norm(other))
    return rows


def _ours(A, b, A_held, b_held, logs: np.ndarray, options: dict) -> Call:
    matrix, held, w = (torch.from_numpy(part) for part in (A, A_held, logs))
    labels, labels_held = (torch.from_numpy(part)[None] for part in (b, b_held))
    w.requires_grad_()
    x0 = torch.zeros(1, A.shape[1], dtype=torch.float64)

    def call() -> Tensor:
        data = bl.Logistic(labels, weight=1 / len(b)) @ bl.Matrix(matrix)
        x = bl.argmin(data + w.exp() * bl.LeastSquares(), x0=x0, tol=TOL, **options)
        return torch.autograd.grad(softplus(-labels_held * (x @ held.mT)).mean(), w)[0]

    return call


def newton_by_hand(A, b, A_held, b_held, logs: np.ndarray) -> np.ndarray:
    """Newton's method from 0, its last factor for the adjoint, too."""
    weight, x = np.exp(logs), np.zeros(A.shape[1])
    change = np.inf
    while np.linalg.norm(change) > TOL * np.linalg.norm(x):
        p = expit(-b * (A @ x))
        H = (A * (p * (1 - p) / len(b))[:, None]).T @ A + np.diag(weight)
        factor = cho_factor(H, check_finite=False)
        change = cho_solve(factor, weight * x - A.T @ (b * p) / len(b), check_finite=False)
        x = x - change
    return -weight * x * cho_solve(factor, _slope(A_held, b_held, x), check_finite=False)


def by_scipy(A, b, A_held, b_held, logs: np.ndarray) -> np.ndarray:
    """SciPy's L-BFGS, then its conjugate gradients for the adjoint."""
    weight, n = np.exp(logs), A.shape[1]

    def evaluate(x: np.ndarray) -> tuple[float, np.ndarray]:
        margin = b * (A @ x)
        value = np.logaddexp(0, -margin).mean() + weight @ x**2 / 2
        return value, weight * x - A.T @ (b * expit(-margin)) / len(b)

    options = {"gtol": TOL, "ftol": 0.0, "maxiter": 10_000}
    x = minimize(evaluate, np.zeros(n), jac=True, method="L-BFGS-B", options=options).x
    p = expit(-b * (A @ x))
    curvature = p * (1 - p) / len(b)
    H = LinearOperator((n, n), lambda v: A.T @ (curvature * (A @ v)) + weight * v)
    return -weight * x * cg(H, _slope(A_held, b_held, x), rtol=TOL)[0]


def _slope(A: np.ndarray, b: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Of the mean held-out loss."""
    return -A.T @ (b * expit(-b * (A @ x))) / len(b)
