"""Smooth problems: ridge and logistic regression, by Newton's equation."""

import numpy as np
from scipy.special import expit

from .base import Answer, Reference, Theta, relative, sum_to, uniform


def _draw_ridge(rng, rows: int = 120, columns: int = 60, weight_shape=()) -> Theta:
    A = rng.standard_normal((rows, columns)) / np.sqrt(rows)
    return {"A": A, "b": rng.standard_normal(rows), "w": uniform(rng, 0.1, 1, weight_shape)}


def _ridge_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 + 1/2 sum_j w_j x_j^2."""
    return 0.5 * np.sum((theta["A"] @ x - theta["b"]) ** 2) + 0.5 * np.sum(theta["w"] * x * x)


def _solve_ridge(theta: Theta) -> Answer:
    """(A^T A + diag w) x = A^T b; with r = Ax - b and u = H^-1 g: -(r u^T + Au x^T) for A."""
    A, b, w = theta["A"], theta["b"], theta["w"]
    hessian = A.T @ A + np.diag(np.broadcast_to(w, A.shape[1]))
    x = np.linalg.solve(hessian, A.T @ b)
    r = A @ x - b

    def vjp(g: np.ndarray) -> Theta:
        u = np.linalg.solve(hessian, g)
        return {
            "A": -(np.outer(r, u) + np.outer(A @ u, x)),
            "b": A @ u,
            "w": sum_to(-u * x, w.shape),
        }

    residual = relative(A.T @ r + w * x, A.T @ b)
    return Answer(x, residual, np.inf, np.zeros(0), vjp, dual=r)


def _draw_logistic(rng, rows: int = 500, columns: int = 200, weight_shape=()) -> Theta:
    A = rng.standard_normal((rows, columns)) / np.sqrt(columns)
    truth = 3 * rng.standard_normal(columns)
    labels = np.where(rng.uniform(size=rows) < expit(A @ truth), 1.0, -1.0)
    return {"A": A, "labels": labels, "w": uniform(rng, 0.1, 1, weight_shape)}


def _logistic_energy(theta: Theta, x: np.ndarray) -> float:
    """sum_i log(1 + exp(-y_i a_i x)) + 1/2 sum_j w_j x_j^2, labels y = -1 or 1."""
    loss = np.logaddexp(0, -theta["labels"] * (theta["A"] @ x)).sum()
    return loss + 0.5 * np.sum(theta["w"] * x * x)


def _solve_logistic(theta: Theta) -> Answer:
    """Newton with backtracking; then u = H^-1 g and dF = dA^T r + A^T (d dA x) + ..."""
    A, y, w = theta["A"], theta["labels"], theta["w"]
    x = np.zeros(A.shape[1])
    gradient = hessian = r = d = np.zeros(0)
    for _ in range(60):
        s = expit(-y * (A @ x))
        r, d = -y * s, y * y * s * (1 - s)  # first and second derivative of the loss in Ax
        gradient = A.T @ r + w * x
        hessian = (A.T * d) @ A + np.diag(np.broadcast_to(w, len(x)))
        if relative(gradient, A.T @ r) < 1e-15:
            break
        step, t = np.linalg.solve(hessian, gradient), 1.0
        rounding = 1e-14 * abs(_logistic_energy(theta, x))  # of the energy; the step may be tiny
        while t > 1e-9 and _logistic_energy(theta, x - t * step) > (
            _logistic_energy(theta, x) + rounding
        ):
            t /= 2
        x = x - t * step
    residual = relative(A.T @ (-y * expit(-y * (A @ x))) + w * x, A.T @ r)
    slope = y * d * (A @ x) / (y * y) - expit(-y * (A @ x))  # dr_i / dy_i

    def vjp(g: np.ndarray) -> Theta:
        u = np.linalg.solve(hessian, g)
        return {
            "A": -(np.outer(r, u) + np.outer(d * (A @ u), x)),
            "w": sum_to(-u * x, w.shape),
            "labels": -(A @ u) * slope,  # of the formula; labels are fixed in practice
        }

    return Answer(x, residual, np.inf, np.zeros(0), vjp, dual=r)


ridge = Reference("ridge", _draw_ridge, _solve_ridge, _ridge_energy)
logistic = Reference("logistic", _draw_logistic, _solve_logistic, _logistic_energy)
