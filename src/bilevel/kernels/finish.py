"""The last digits of an image denoised by total variation: Newton's method on x and its dual."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_matrix, diags_array, eye_array, kron, vstack
from scipy.sparse.linalg import splu

from .flat_image import Image
from .rof_loops import energies

_SHRINK = 0.2  # of the smoothing, a step
_STEPS = 60

Pair = tuple[np.ndarray, np.ndarray]  # x (C, H, W), y (C, 2, H, W)


@dataclass(frozen=True, eq=False)
class Finish:
    """From an (x, y) that is near the solution of mu/2 |x - target|^2 + weight TV(x), to rounding.

    Newton steps [1] on mu (x - target) + D* y = 0, |Dx|_e y = weight Dx, |d|_e^2 = |d|^2 + e^2, in
    x and y at once, while e falls; y is projected onto its ball: the pair has a duality gap, and no
    active set is guessed. Then jumps of order e are made 0, if that lessens the gap. The linear
    system, mu + D* C D with

        C = (weight - (y d* + d y*) / (2 |d|_e)) / |d|_e,

    is factored: about n^1.5 operations on n pixels.
    [1] Chan, Golub, Mulet. A nonlinear primal-dual method for total variation-based image
        restoration. SIAM J. Sci. Comput., 1999.
    """

    target: np.ndarray  # (C, H, W)
    weight: np.ndarray  # (1 or H, W)
    mu: float
    isotropic: bool

    def __call__(self, x: np.ndarray, y: np.ndarray) -> Pair:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # judged by the gap
            x, y, e = self._smoothed(x, y)
            return min((x, y), self._settled(x, y, e), key=self._gap)

    def _gap(self, pair: Pair) -> float:
        rows, columns = self.target.shape[1:]
        found, mu = np.empty((rows, 2)), np.full((1, columns), self.mu)
        energies(self.target, self.weight, mu, self.isotropic, rows, 0, rows, *pair, found)
        gap = found[:, 0].sum()
        return gap if np.isfinite(gap) else np.inf

    def _smoothed(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
        """(x, y, e), with the least e at which the factors are no noise."""
        D = _differences(*x.shape)
        w, shape = np.broadcast_to(self.weight, x.shape[1:]), y.shape
        least = 1e-10 * w.max() / self.mu
        e = max(1e-2 * np.ptp(self.target), least)
        for _ in range(_STEPS):
            d = (D @ x.ravel()).reshape(shape)
            length = np.sqrt((d**2).sum(self._axes, keepdims=True) + e**2)
            C = self._curvature(d, y, w, length)
            pull = w * d / length
            slope = self.mu * (x - self.target).ravel() + D.T @ pull.ravel()
            step = _solve(self.mu * eye_array(x.size) + D.T @ C @ D, -slope)
            change = pull + (C @ (D @ step)).reshape(shape) - y
            x, y = x + step.reshape(x.shape), self._inside(y + change)
            if e == least and np.abs(step).max() <= 0.1 * e:
                break
            e = max(_SHRINK * e, least)
        return x, y, e

    def _settled(self, x: np.ndarray, y: np.ndarray, floor: float) -> Pair:
        """(x, y) without jumps below the floor: Newton steps for x on its zones, y = weight Dx /
        |Dx| at the jumps that are left, and elsewhere the nearest that balances x."""
        D = _differences(*x.shape)
        known = self.weight, self.mu, self.isotropic, floor
        x = Image.at(x, y, *known).means(x)
        for _ in range(12):  # small jumps turn at first
            zones = Image.at(x, y, *known)
            E = csc_matrix((np.ones(x[0].size), (np.arange(x[0].size), zones.labels.ravel())))
            E = kron(eye_array(len(x)), E)
            n, stiff = zones.direction, zones.stiff
            C = self._curvature(n, stiff * n, stiff, np.ones_like(stiff))
            slope = self.mu * (x - self.target).ravel() + D.T @ (self.weight * n).ravel()
            A = E.T @ (self.mu * eye_array(x.size) + D.T @ C @ D) @ E
            step = E @ _solve(A, -E.T @ slope)
            x = x + step.reshape(x.shape)
            if np.abs(step).max() <= 4 * np.finfo(float).eps * np.abs(x).max():
                break
        jumps = np.broadcast_to(stiff > 0 if self.isotropic else n != 0, y.shape)
        y = np.where(jumps, self.weight * n, y)
        flat = diags_array((~jumps).ravel().astype(float)) @ D
        left = self.mu * (self.target - x).ravel() - D.T @ y.ravel()
        grounded = flat.T @ flat + 1e-10 * eye_array(x.size)  # the mean over a zone is left open
        return x, self._inside(y + (flat @ _solve(grounded, left)).reshape(y.shape))

    def _inside(self, y: np.ndarray) -> np.ndarray:
        """The projection onto the ball of radius weight."""
        size = np.sqrt((y**2).sum(self._axes, keepdims=True))
        return y * np.minimum(1, self.weight / np.maximum(size, np.finfo(float).tiny))

    @property
    def _axes(self) -> tuple[int, ...]:
        """Of y: what one norm goes over."""
        return (0, 1) if self.isotropic else ()

    def _curvature(self, d: np.ndarray, y: np.ndarray, w: np.ndarray, length: np.ndarray):
        """C, with |d|_e = length."""
        if not self.isotropic:
            return diags_array(((w - y * d / length) / length).ravel())
        parts, pixels = d.shape[0] * d.shape[1], d[0, 0].size
        a, b, size = d.reshape(parts, pixels), y.reshape(parts, pixels), length.ravel()
        inner = -(a[:, None] * b + b[:, None] * a) / (2 * size**2)
        inner[np.arange(parts), np.arange(parts)] += w.ravel() / size
        index = np.arange(parts * pixels).reshape(parts, pixels)
        at = np.broadcast_to(index[:, None], inner.shape), np.broadcast_to(index, inner.shape)
        return csc_matrix((inner.ravel(), (at[0].ravel(), at[1].ravel())))


def _solve(matrix, b: np.ndarray) -> np.ndarray:
    symmetric = {"SymmetricMode": True}
    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options=symmetric).solve(b)


def _differences(channels: int, rows: int, columns: int) -> csc_matrix:
    """D, to (C, 2, H, W) flattened."""

    def one(n: int):  # forward, 0 at the edge
        last = np.ones(n)
        last[-1] = 0
        return diags_array([-last, last[:-1]], offsets=[0, 1], shape=(n, n))  # type: ignore[arg-type]

    down = kron(one(rows), eye_array(columns))
    right = kron(eye_array(rows), one(columns))
    return csc_matrix(kron(eye_array(channels), vstack([down, right])))
