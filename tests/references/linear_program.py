"""min |Kx|_1 over a box around y: a linear program, differentiated at its vertex."""

import numpy as np
from scipy.fft import dct
from scipy.optimize import linprog

from .base import Answer, NotSolved, Reference, Theta, relative, smallest, sum_to


def _draw(rng, n: int = 40, width_shape=()) -> Theta:
    """A perturbed cosine transform and a rounded smooth signal, as in dequantisation."""
    K = dct(np.eye(n), axis=0, norm="ortho") + 0.1 / np.sqrt(n) * rng.standard_normal((n, n))
    t = np.arange(n) / n
    signal = sum(rng.normal() * np.cos(2 * np.pi * (f * t + rng.uniform())) for f in (1, 2, 3))
    signal = signal + 0.15 * rng.standard_normal(n)  # else the cosines explain all of it
    return {
        "K": K,
        "y": np.round(2 * signal) / 2 + 0.02 * rng.standard_normal(n),  # no ties
        "eta": np.asarray(rng.uniform(0.2, 0.3, width_shape)),
    }


def _energy(theta: Theta, x: np.ndarray) -> float:
    """|Kx|_1 for |x - y| <= eta."""
    inside = (np.abs(x - theta["y"]) <= theta["eta"] * (1 + 1e-12)).all()
    return float(np.abs(theta["K"] @ x).sum()) if inside else np.inf


def _solve(theta: Theta) -> Answer:
    """Z: rows with Kx = 0, F: coordinates inside the box. A vertex has |Z| = |F| and

        K_ZF x_F = -K_ZB x_B,  x_B = y_B + side eta,   K_ZF^T p_Z = -K_NF^T sign(Kx)_N

    so its derivative is one |F| x |F| solve, as long as nothing is tight by accident.
    """
    K, y, eta = theta["K"], theta["y"], np.broadcast_to(theta["eta"], len(theta["y"]))
    n = len(y)
    bounds = [*zip(y - eta, y + eta, strict=True), *[(0, None)] * n]
    rows = np.block([[K, -np.eye(n)], [-K, -np.eye(n)]])
    program = linprog(np.repeat([0.0, 1.0], n), rows, np.zeros(2 * n), bounds=bounds)
    if program.status != 0:
        raise NotSolved(f"l1_analysis_box: HiGHS failed: {program.message} Is eta positive?")
    guess = program.x[:n]
    zero = np.abs(K @ guess) < 1e-7
    offset = (guess - y) / eta
    side = np.where(np.abs(offset) > 1 - 1e-7, np.sign(offset), 0)
    F, free = np.flatnonzero(side == 0), side == 0
    square = K[np.ix_(zero, free)]
    if zero.sum() != free.sum() or not 0 < len(F) < n or np.linalg.cond(square) > 1e6:
        return Answer(guess, np.inf, 0.0, side, lambda g: {})  # degenerate: draw another
    x = y + side * eta
    x[F] = np.linalg.solve(square, -K[np.ix_(zero, ~free)] @ x[~free])
    signs = np.where(zero, 0, np.sign(K @ x))
    p = signs.copy()
    p[zero] = np.linalg.solve(square.T, -K[:, F].T @ signs)
    push = -(K.T @ p) * side  # the multiplier of the box
    margin = smallest(
        np.abs(K @ x)[~zero] / np.abs(K @ x).max(),
        (1 - np.abs(x - y) / eta)[free],
        1 - np.abs(p[zero]),
        push[~free] / np.abs(K).sum(0).max(),
    )

    def vjp(g: np.ndarray) -> Theta:
        adjoint = np.zeros(n)
        adjoint[zero] = np.linalg.solve(square.T, g[F])
        for_bounds = np.where(free, 0, g - K.T @ adjoint)
        return {
            "K": -np.outer(adjoint, x),
            "y": for_bounds,
            "eta": sum_to(for_bounds * side, theta["eta"].shape),
        }

    active = np.concatenate([side, signs])
    return Answer(x, _residual(K, y, eta, x, p), margin, active, vjp, dual=p)


def _residual(K, y, eta, x, p) -> float:
    """Feasibility of x and p, and the gap |Kx|_1 - min_box <K^T p, .>: zero only at both optima."""
    outside = np.maximum(np.abs(x - y) - eta, 0), np.maximum(np.abs(p) - 1, 0)
    value = np.abs(K @ x).sum()
    bound = p @ K @ y - eta @ np.abs(K.T @ p)
    return max(relative(outside[0], y), float(outside[1].max()), abs(value - bound) / value)


l1_analysis_box = Reference("l1_analysis_box", _draw, _solve, _energy)
