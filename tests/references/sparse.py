"""Sparse regression: lasso, elastic net, group lasso, on the active features or groups."""

import numpy as np

from .base import Answer, Reference, Theta, fista, relative, smallest, sum_to, uniform


def _draw(rng, rows: int, columns: int, nonzeros: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix and b = A x + noise, x with entries of size 1 to 2."""
    A = rng.standard_normal((rows, columns)) / np.sqrt(rows)
    truth = np.zeros(columns)
    support = rng.choice(columns, nonzeros, replace=False)
    truth[support] = rng.uniform(1, 2, nonzeros) * rng.choice([-1, 1], nonzeros)
    return A, A @ truth + 0.1 * rng.standard_normal(rows)


def _soft(v: np.ndarray, threshold: np.ndarray) -> np.ndarray:
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)


def _draw_elastic_net(rng, rows: int = 50, columns: int = 60, weight_shape=()) -> Theta:
    A, b = _draw(rng, rows, columns, max(columns // 10, 2))
    l1, l2 = (uniform(rng, 0.2, 0.4, weight_shape) for _ in range(2))
    return {"A": A, "b": b, "l1": l1, "l2": l2}


def _elastic_net_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 + sum_j l1_j |x_j| + 1/2 sum_j l2_j x_j^2."""
    r = theta["A"] @ x - theta["b"]
    return 0.5 * r @ r + np.sum(theta["l1"] * np.abs(x)) + 0.5 * np.sum(theta["l2"] * x * x)


def _solve_elastic_net(theta: Theta) -> Answer:
    """On the support S, signs s: (A_S^T A_S + diag l2) x = A_S^T b - l1 s; |A_j^T r| < l1 off S."""
    A, b = theta["A"], theta["b"]
    l1, l2 = (np.broadcast_to(theta[k], A.shape[1]) for k in ("l1", "l2"))

    def prox(v: np.ndarray, step: float) -> np.ndarray:
        return _soft(v, step * l1) / (1 + step * l2)

    def finish(guess: np.ndarray) -> Answer | None:
        S, signs = np.flatnonzero(guess), np.sign(guess)
        if len(S) > len(A) and not l2.all():
            return None
        hessian = A[:, S].T @ A[:, S] + np.diag(l2[S])
        x = np.zeros_like(guess)
        x[S] = np.linalg.solve(hessian, A[:, S].T @ b - (l1 * signs)[S])
        r = A @ x - b
        correlation = A.T @ r + l2 * x
        off = signs == 0
        slacks = (signs * x)[S] / np.abs(x).max(initial=1e-300), 1 - np.abs(correlation / l1)[off]
        if (margin := smallest(*slacks)) <= 0:
            return None

        def vjp(g: np.ndarray) -> Theta:
            u = np.zeros_like(x)
            u[S] = np.linalg.solve(hessian, g[S])
            return {
                "A": -(np.outer(r, u) + np.outer(A @ u, x)),
                "b": A @ u,
                "l1": sum_to(-u * signs, theta["l1"].shape),
                "l2": sum_to(-u * x, theta["l2"].shape),
            }

        residual = relative(x - _soft(x - correlation, l1), x)
        return Answer(x, residual, margin, signs, vjp, dual=r)

    return fista(A, b, prox, finish)


def _draw_lasso(rng, rows: int = 500, columns: int = 2000, weight_shape=()) -> Theta:
    A, b = _draw(rng, rows, columns, max(columns // 50, 2))
    return {"A": A, "b": b, "w": uniform(rng, 0.3, 0.6, weight_shape)}


def _as_elastic_net(theta: Theta) -> Theta:
    return {"A": theta["A"], "b": theta["b"], "l1": theta["w"], "l2": np.zeros(())}


def _lasso_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 + sum_j w_j |x_j|."""
    return _elastic_net_energy(_as_elastic_net(theta), x)


def _solve_lasso(theta: Theta) -> Answer:
    """The elastic net without its quadratic; margin > 0 makes the solution unique."""
    net = _solve_elastic_net(_as_elastic_net(theta))

    def vjp(g: np.ndarray) -> Theta:
        gradients = net.vjp(g)
        return {"A": gradients["A"], "b": gradients["b"], "w": gradients["l1"]}

    return Answer(net.x, net.residual, net.margin, net.active, vjp, net.dual)


def _draw_group_lasso(
    rng, rows: int = 50, groups: int = 20, size: int = 4, weight_shape=()
) -> Theta:
    """x has shape (groups, size), A (rows, groups, size), w () or (groups,)."""
    A = rng.standard_normal((rows, groups, size)) / np.sqrt(rows)
    truth = rng.standard_normal((groups, size))
    truth[rng.permutation(groups)[max(groups // 4, 2) :]] = 0
    b = np.tensordot(A, truth) + 0.1 * rng.standard_normal(rows)
    return {"A": A, "b": b, "w": uniform(rng, 0.4, 0.8, weight_shape)}


def _group_lasso_energy(theta: Theta, x: np.ndarray) -> float:
    """1/2 |Ax - b|^2 + sum_g w_g |x_g|_2."""
    r = np.tensordot(theta["A"], x) - theta["b"]
    return 0.5 * r @ r + np.sum(theta["w"] * np.linalg.norm(x, axis=1))


def _solve_group_lasso(theta: Theta) -> Answer:
    """Newton on the active groups, whose norms add the curvature w/|x_g| (I - n n^T)."""
    b, shape = theta["b"], theta["A"].shape[1:]
    A = theta["A"].reshape(len(b), -1)
    w = np.broadcast_to(theta["w"], shape[0])

    def shrink(v: np.ndarray, step: float) -> np.ndarray:
        v = v.reshape(shape)
        norm = np.linalg.norm(v, axis=1)
        return (v * (np.maximum(norm - step * w, 0) / np.maximum(norm, 1e-300))[:, None]).ravel()

    def finish(guess: np.ndarray) -> Answer | None:
        on = np.linalg.norm(guess.reshape(shape), axis=1) > 0
        S = np.flatnonzero(np.repeat(on, shape[1]))
        x, hessian, direction = guess.copy(), np.zeros((0, 0)), np.zeros(shape)
        for _ in range(20):
            parts = x.reshape(shape)[on]
            norm = np.linalg.norm(parts, axis=1)
            direction[on] = n = parts / norm[:, None]
            hessian = A[:, S].T @ A[:, S]
            for i, (length, weight) in enumerate(zip(norm, w[on], strict=True)):
                block = slice(i * shape[1], (i + 1) * shape[1])
                hessian[block, block] += weight / length * (np.eye(shape[1]) - np.outer(n[i], n[i]))
            gradient = A.T @ (A @ x - b) + (w[:, None] * direction).ravel()
            step = np.linalg.solve(hessian, gradient[S])
            if not np.abs(step).max(initial=0) < np.abs(x).max(initial=0):
                return None  # Newton diverges: the guess is far
            x[S] -= step
        r = A @ x - b
        norm = np.linalg.norm(x.reshape(shape), axis=1)
        dual_norm = np.linalg.norm((A.T @ r).reshape(shape), axis=1)
        residual = relative(x - shrink(x - A.T @ r, 1.0), x)
        margin = smallest(norm[on] / norm.max(initial=1e-300), (1 - dual_norm / w)[~on])
        if margin <= 0 or residual > 1e-11:
            return None

        def vjp(g: np.ndarray) -> Theta:
            u = np.zeros_like(x)
            u[S] = np.linalg.solve(hessian, g.ravel()[S])
            for_A = -(np.outer(r, u) + np.outer(A @ u, x))
            for_w = -np.sum(u.reshape(shape) * direction, axis=1)
            return {
                "A": for_A.reshape(theta["A"].shape),
                "b": A @ u,
                "w": sum_to(for_w, theta["w"].shape),
            }

        return Answer(x.reshape(shape), residual, margin, on, vjp, dual=r)

    return fista(A, b, shrink, finish)


lasso = Reference("lasso", _draw_lasso, _solve_lasso, _lasso_energy)
elastic_net = Reference("elastic_net", _draw_elastic_net, _solve_elastic_net, _elastic_net_energy)
group_lasso = Reference("group_lasso", _draw_group_lasso, _solve_group_lasso, _group_lasso_energy)
