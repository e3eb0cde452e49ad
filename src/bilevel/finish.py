"""The last digits of an image denoised by total variation: Newton's method on x and its dual."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csc_matrix, diags_array, eye_array, kron, vstack
from scipy.sparse.linalg import splu

from .differentiation.flat_zones import Image

_SHRINK = 0.8  # of the smoothing goes with a full step
_STEPS = 100


def finish(
    target: np.ndarray,
    weight: np.ndarray,
    mu: float,
    isotropic: bool,
    x: np.ndarray,
    y: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) of an image (C, H, W) from a point that is near, y of (C, 2, H, W), to rounding.

    Newton steps [1] on mu (x - target) + D* y = 0, |Dx|_e y = weight Dx, |d|_e^2 = |d|^2 + e^2, in
    x and y at once, while e falls. y stays inside its ball, so that the pair has a duality gap, and
    no active set is guessed. At the end x, whose jumps of 0 are of order e still, is averaged over
    its zones. The linear system, mu + D* C D with

        C = (weight - (y d* + d y*) / (2 |d|_e)) / |d|_e,

    is factored: about n^1.5 operations on n pixels.
    [1] Chan, Golub, Mulet. A nonlinear primal-dual method for total variation-based image
        restoration. SIAM J. Sci. Comput., 1999.
    """
    D = _differences(*x.shape)  # to (C, 2, H, W), flattened
    w, axes, shape = np.broadcast_to(weight, x.shape[1:]), (0, 1) if isotropic else (), y.shape
    least = 1e-10 * w.max() / mu  # smaller, and the factors are noise
    e = max(1e-2 * np.ptp(target), least)
    y = 0.999 * y  # off the boundary
    for _ in range(_STEPS):
        d = (D @ x.ravel()).reshape(shape)
        length = np.sqrt((d**2).sum(axes, keepdims=True) + e**2)
        C = _curvature(d, y, w, length, isotropic)
        pull = w * d / length
        slope = mu * (x - target).ravel() + D.T @ pull.ravel()
        matrix = (mu * eye_array(x.size) + D.T @ C @ D).tocsc()
        symmetric = {"SymmetricMode": True}
        step = splu(matrix, permc_spec="MMD_AT_PLUS_A", options=symmetric).solve(-slope)
        change = pull + (C @ (D @ step)).reshape(shape) - y
        reach = _inside(y, change, w, axes)
        x, y = x + step.reshape(x.shape), y + reach * change
        if e == least and (reach == 1 or np.abs(step).max() <= e):
            break
        e = max((1 - _SHRINK * reach) * e, least)
    return _settled(target, weight, mu, isotropic, D, x, y, e)


def _settled(
    target: np.ndarray,
    weight: np.ndarray,
    mu: float,
    isotropic: bool,
    D: csc_matrix,
    x: np.ndarray,
    y: np.ndarray,
    floor: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) with jumps of 0 where they are below the floor and y is inside its ball: Newton steps
    for x on its zones, then y = weight Dx / |Dx| at jumps, and the nearest that balances x on the
    flat differences."""
    for _ in range(3):
        zones = Image.at(x, y, weight, isotropic, floor)
        x = zones.means(x)
        pull = weight * zones.direction
        slope = mu * (x - target) + (D.T @ pull.ravel()).reshape(x.shape)
        step = np.empty_like(x)
        zones.solve(-slope, mu, step, 1e-12)
        x = x + step
    jumps = zones.direction != 0 if not isotropic else (zones.stiff > 0)[None, None]
    y = np.where(jumps, weight * zones.direction, y)
    flat = diags_array((~np.broadcast_to(jumps, y.shape)).ravel().astype(float)) @ D
    grounded = (flat.T @ flat + 1e-10 * eye_array(x.size)).tocsc()
    left = mu * (target - x).ravel() - D.T @ y.ravel()
    return x, y + (flat @ splu(grounded).solve(left)).reshape(y.shape)


def _differences(channels: int, rows: int, columns: int) -> csc_matrix:
    def one(n: int):  # forward, 0 at the edge
        last = np.ones(n)
        last[-1] = 0
        return diags_array([-last, last[:-1]], offsets=[0, 1], shape=(n, n))

    down = kron(one(rows), eye_array(columns))
    right = kron(eye_array(rows), one(columns))
    return csc_matrix(kron(eye_array(channels), vstack([down, right])))


def _curvature(d: np.ndarray, y: np.ndarray, w: np.ndarray, length: np.ndarray, isotropic: bool):
    if not isotropic:
        return diags_array(((w - y * d / length) / length).ravel())
    parts, pixels = d.shape[0] * d.shape[1], d[0, 0].size
    a, b, size = d.reshape(parts, pixels), y.reshape(parts, pixels), length.ravel()
    inner = -(a[:, None] * b + b[:, None] * a) / (2 * size**2)
    inner[np.arange(parts), np.arange(parts)] += w.ravel() / size
    index = np.arange(parts * pixels).reshape(parts, pixels)
    at = np.broadcast_to(index[:, None], inner.shape), np.broadcast_to(index, inner.shape)
    return csc_matrix((inner.ravel(), (at[0].ravel(), at[1].ravel())))


def _inside(y: np.ndarray, change: np.ndarray, w: np.ndarray, axes: tuple[int, ...]) -> float:
    """The longest step, at most 1, that stays in the ball of radius weight, or nearly."""
    a = (change**2).sum(axes, keepdims=True)
    b = (y * change).sum(axes, keepdims=True)
    c = np.maximum(w**2 - (y**2).sum(axes, keepdims=True), 0)
    far = a > 0
    root = np.sqrt(b[far] ** 2 + a[far] * c[far])
    reach = (root - b[far]) / a[far]
    return min(1.0, 0.999 * reach.min(initial=np.inf))
