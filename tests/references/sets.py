"""Least squares in a set: simplex, box, Euclidean ball; the projection on the ball."""

import numpy as np
from scipy.optimize import brentq

from .base import Answer, Reference, Theta, fista, relative, smallest


def _draw(rng, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    A = rng.standard_normal((rows, columns)) / np.sqrt(rows)
    return A, rng.standard_normal(rows)


def _misfit(theta: Theta, x: np.ndarray) -> float:
    return 0.5 * np.sum((theta["A"] @ x - theta["b"]) ** 2)


def _for_data(A: np.ndarray, x: np.ndarray, r: np.ndarray, u: np.ndarray) -> Theta:
    """The pull of A^T (Ax - b) on A and b, along u."""
    return {"A": -(np.outer(r, u) + np.outer(A @ u, x)), "b": A @ u}


def _project_on_simplex(v: np.ndarray, radius: float) -> np.ndarray:
    ordered = np.sort(v)[::-1]
    shift = (np.cumsum(ordered) - radius) / np.arange(1, len(v) + 1)
    return np.maximum(v - shift[np.flatnonzero(ordered > shift)[-1]], 0)


def _draw_simplex(rng, rows: int = 40, columns: int = 30) -> Theta:
    A, b = _draw(rng, rows, columns)
    return {"A": A, "b": b, "radius": np.asarray(1.0)}


def _simplex_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 for x >= 0, sum x = radius."""
    inside = x.min() >= 0 and abs(x.sum() - theta["radius"]) <= 1e-12 * theta["radius"]
    return _misfit(theta, x) if inside else np.inf


def _solve_simplex(theta: Theta) -> Answer:
    """On the support S: [[A_S^T A_S, 1], [1^T, 0]] (x, nu) = (A_S^T b, radius); mu >= 0 off S."""
    A, b, radius = theta["A"], theta["b"], float(theta["radius"])

    def finish(guess: np.ndarray) -> Answer | None:
        S, off = np.flatnonzero(guess > 0), guess <= 0
        system = np.ones((len(S) + 1, len(S) + 1))
        system[:-1, :-1], system[-1, -1] = A[:, S].T @ A[:, S], 0
        *solution, nu = np.linalg.solve(system, np.append(A[:, S].T @ b, radius))
        x = np.zeros_like(guess)
        x[S] = solution
        r = A @ x - b
        mu = A.T @ r + nu  # the multiplier of x >= 0
        margin = smallest(x[S] / radius, mu[off] / np.abs(A.T @ b).max())
        if margin <= 0:
            return None

        def vjp(g: np.ndarray) -> Theta:
            u = np.zeros_like(x)
            *u[S], for_radius = np.linalg.solve(system, np.append(g[S], 0))
            return {**_for_data(A, x, r, u), "radius": np.asarray(for_radius)}

        residual = relative(x - _project_on_simplex(x - A.T @ r, radius), x)
        return Answer(x, residual, margin, off, vjp, dual=mu)

    return fista(A, b, lambda v, step: _project_on_simplex(v, radius), finish)


def _draw_box(rng, rows: int = 40, columns: int = 30) -> Theta:
    A, b = _draw(rng, rows, columns)
    lower, upper = rng.uniform(-0.5, -0.2, columns), rng.uniform(0.2, 0.5, columns)
    return {"A": A, "b": b, "lower": lower, "upper": upper}


def _box_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 for lower <= x <= upper."""
    inside = (theta["lower"] <= x).all() and (x <= theta["upper"]).all()
    return _misfit(theta, x) if inside else np.inf


def _solve_box(theta: Theta) -> Answer:
    """On the free F: A_F^T A_F x_F = A_F^T (b - A_B x_B); the gradient points out on B."""
    A, b, lower, upper = (theta[k] for k in ("A", "b", "lower", "upper"))

    def clip(v: np.ndarray, step: float) -> np.ndarray:
        return np.clip(v, lower, upper)

    def finish(guess: np.ndarray) -> Answer | None:
        side = np.where(guess <= lower, -1, np.where(guess >= upper, 1, 0))
        F, bound = np.flatnonzero(side == 0), side != 0
        hessian = A[:, F].T @ A[:, F]
        x = np.where(side < 0, lower, np.where(side > 0, upper, 0))
        x[F] = np.linalg.solve(hessian, A[:, F].T @ (b - A @ x))
        r = A @ x - b
        push = -(A.T @ r) * side  # the multiplier of the bound
        room = np.minimum(x - lower, upper - x) / (upper - lower)
        margin = smallest(room[F], push[bound] / np.abs(A.T @ b).max())
        if margin <= 0:
            return None

        def vjp(g: np.ndarray) -> Theta:
            u = np.zeros_like(x)
            u[F] = np.linalg.solve(hessian, g[F])
            for_bounds = g - A.T @ (A @ u)
            return {
                **_for_data(A, x, r, u),
                "lower": np.where(side < 0, for_bounds, 0),
                "upper": np.where(side > 0, for_bounds, 0),
            }

        residual = relative(x - clip(x - A.T @ r, 1.0), x)
        return Answer(x, residual, margin, side, vjp, dual=-A.T @ r)

    return fista(A, b, clip, finish)


def _draw_ball(rng, rows: int = 40, columns: int = 30, inside: bool = False) -> Theta:
    A, b = _draw(rng, rows, columns)
    free = np.linalg.norm(np.linalg.lstsq(A, b)[0])
    return {"A": A, "b": b, "radius": np.asarray(free * (1.5 if inside else 0.5))}


def _ball_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 for |x|_2 <= radius."""
    inside = np.linalg.norm(x) <= theta["radius"] * (1 + 1e-14)
    return _misfit(theta, x) if inside else np.inf


def _solve_ball(theta: Theta) -> Answer:
    """(A^T A + mu) x = A^T b, with mu = 0 inside the ball and |x| = radius on the sphere."""
    A, b, radius = theta["A"], theta["b"], float(theta["radius"])
    values, vectors = np.linalg.eigh(A.T @ A)
    rotated = vectors.T @ (A.T @ b)

    def excess(mu: float) -> float:
        return float(np.linalg.norm(rotated / (values + mu))) - radius

    touching = excess(0.0) > 0
    top = np.linalg.norm(rotated) / radius
    mu = float(brentq(excess, 0, top, xtol=1e-15, rtol=1e-15)) if touching else 0.0  # pyright: ignore
    x = vectors @ (rotated / (values + mu))
    if touching:  # the root is good to sqrt(rounding) in hard cases: finish by Newton
        for _ in range(4):
            system = _bordered(A, x, mu)
            short = np.append(A.T @ (A @ x - b) + mu * x, (x @ x - radius**2) / 2)
            step = np.linalg.solve(system, short)
            x, mu = x - step[:-1], mu - step[-1]
    r = A @ x - b
    gradient = A.T @ r
    target = x - gradient
    residual = relative(x - target * min(1, radius / np.linalg.norm(target)), x)
    margin = mu * radius / np.linalg.norm(A.T @ b) if touching else 1 - np.linalg.norm(x) / radius

    def vjp(g: np.ndarray) -> Theta:
        if not touching:
            u = np.linalg.solve(A.T @ A, g)
            return {**_for_data(A, x, r, u), "radius": np.zeros(())}
        *u, for_radius = np.linalg.solve(_bordered(A, x, mu), np.append(g, 0))
        return {**_for_data(A, x, r, np.array(u)), "radius": np.asarray(for_radius * radius)}

    return Answer(x, residual, float(margin), np.array([touching]), vjp, dual=np.asarray(mu))


def _bordered(A: np.ndarray, x: np.ndarray, mu: float) -> np.ndarray:
    """[[A^T A + mu, x], [x^T, 0]]: the KKT matrix on the sphere."""
    return np.block([[A.T @ A + mu * np.eye(len(x)), x[:, None]], [x[None], np.zeros((1, 1))]])


def _draw_projection(rng, columns: int = 30, inside: bool = False) -> Theta:
    y = rng.standard_normal(columns)
    return {"y": y, "radius": np.asarray(np.linalg.norm(y) * (1.5 if inside else 0.5))}


def _projection_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |x - y|^2 for |x|_2 <= radius."""
    inside = np.linalg.norm(x) <= theta["radius"] * (1 + 1e-14)
    return 0.5 * np.sum((x - theta["y"]) ** 2) if inside else np.inf


def _solve_projection(theta: Theta) -> Answer:
    """min(1, radius / |y|) y."""
    y, radius = theta["y"], float(theta["radius"])
    norm = float(np.linalg.norm(y))
    n, outside = y / norm, norm > radius
    x = radius * n if outside else y.copy()

    def vjp(g: np.ndarray) -> Theta:
        if not outside:
            return {"y": g.copy(), "radius": np.zeros(())}
        return {"y": radius / norm * (g - n * (n @ g)), "radius": np.asarray(n @ g)}

    mu = max(norm / radius - 1, 0)  # y - x = mu x
    residual = relative(y - x - mu * x, y)
    return Answer(x, residual, abs(norm / radius - 1), np.array([outside]), vjp, np.asarray(mu))


simplex_least_squares = Reference(
    "simplex_least_squares", _draw_simplex, _solve_simplex, _simplex_energy
)
box_least_squares = Reference("box_least_squares", _draw_box, _solve_box, _box_energy)
l2_ball_least_squares = Reference("l2_ball_least_squares", _draw_ball, _solve_ball, _ball_energy)
l2_ball_projection = Reference(
    "l2_ball_projection", _draw_projection, _solve_projection, _projection_energy
)
