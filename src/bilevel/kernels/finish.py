"""The last digits of an image denoised by total variation: Newton's method on x and its dual."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csc_matrix, diags_array, eye_array, kron, vstack
from scipy.sparse.linalg import splu

from .flat_loops import components
from .rof_loops import energies

_SHRINK = 0.2  # of the smoothing, a step
_STEPS = 60
_SURE = 30  # |Dx| / e of a jump: where it is flat, |Dx| / e is about (2 - 2 |y| / weight)^-1/2

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
        D = self._D
        w, shape = np.broadcast_to(self.weight, x.shape[1:]), y.shape
        least = 1e-12 * w.max() / self.mu
        e = max(1e-2 * np.ptp(self.target), least)
        for _ in range(_STEPS):
            d = self._jump(x)
            length = self._length(d, e)
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

    def _settled(self, x: np.ndarray, y: np.ndarray, e: float) -> Pair:
        """(x, y) without jumps of order e: x on its zones, y = weight Dx / |Dx| at the jumps that
        are left, and elsewhere the nearest that balances x."""
        D, start = self._D, x
        jumps = self._length(self._jump(x)) > _SURE * e
        while True:  # ends: each round leaves fewer jumps
            x, turned = self._on_zones(start, jumps)
            if not turned.any():
                break
            jumps &= ~turned
        y = np.where(jumps, self.weight * self._polar(x, jumps)[0], y)
        flat = diags_array((~np.broadcast_to(jumps, y.shape)).ravel().astype(float)) @ D
        left = self.mu * (self.target - x).ravel() - D.T @ y.ravel()
        grounded = flat.T @ flat + 1e-10 * eye_array(x.size)  # the mean over a zone is left open
        return x, self._inside(y + (flat @ _solve(grounded, left)).reshape(y.shape))

    def _on_zones(self, x: np.ndarray, jumps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(x after Newton steps that keep it constant where it does not jump; the jumps that the
        next step would turn round, so that they are none)."""
        D = self._D
        flat, labels = np.empty((2, *x.shape[1:]), np.bool_), np.empty(x.shape[1:], np.uint32)
        flat[:] = ((self.weight > 0) & ~jumps)[0]
        components(flat, labels)
        E = csc_matrix((np.ones(labels.size), (np.arange(labels.size), labels.ravel())))
        x = (x.reshape(len(x), -1) @ E / np.bincount(labels.ravel()))[:, labels]
        E = kron(eye_array(len(x)), E)
        for _ in range(12):  # small jumps turn at first
            n, size = self._polar(x, jumps)
            stiff = np.divide(self.weight, size, out=np.zeros_like(size), where=jumps & (size > 0))
            C = self._curvature(n, stiff * n, stiff, np.ones_like(stiff))
            slope = self.mu * (x - self.target).ravel() + D.T @ (self.weight * n).ravel()
            A = E.T @ (self.mu * eye_array(x.size) + D.T @ C @ D) @ E
            step = (E @ _solve(A, -E.T @ slope)).reshape(x.shape)
            along = (n * self._jump(step)).sum(self._axes, keepdims=True)
            turned = jumps & (along <= -size)
            if turned.any():
                break
            x = x + step
            if np.abs(step).max() <= 4 * np.finfo(float).eps * np.abs(x).max():
                break
        return x, turned

    def _polar(self, x: np.ndarray, jumps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(Dx / |Dx| at the jumps, else 0; |Dx|)."""
        d = self._jump(x)
        size = self._length(d)
        return np.divide(d, size, out=np.zeros_like(d), where=jumps & (size > 0)), size

    def _jump(self, x: np.ndarray) -> np.ndarray:  # -> (C, 2, H, W)
        return (self._D @ x.ravel()).reshape(len(x), 2, *x.shape[1:])

    @cached_property
    def _D(self) -> csc_matrix:
        return _differences(*self.target.shape)

    def _length(self, d: np.ndarray, e: float = 0.0) -> np.ndarray:
        """|d|_e, one a pixel (isotropic) or a difference."""
        return np.sqrt((d**2).sum(self._axes, keepdims=True) + e**2)

    def _inside(self, y: np.ndarray) -> np.ndarray:
        """The projection onto the ball of radius weight."""
        return y * np.minimum(1, self.weight / np.maximum(self._length(y), np.finfo(float).tiny))

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
