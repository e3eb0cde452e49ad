"""The flat zones of an image, and linear systems on what is constant on each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .flat_loops import bend, bonds, components, conjugate_gradients, rescale, sums

_LIMIT = 20_000  # products of one solve


@dataclass(frozen=True, eq=False)
class Image:
    """The zones of one image, and how it jumps between them."""

    labels: np.ndarray  # (H, W): the zone of a pixel
    sizes: np.ndarray  # (zones,)
    direction: np.ndarray  # (C, 2, H, W): n = Dx / |Dx| where x jumps, else 0
    stiff: np.ndarray  # (H, W): weight / |Dx| there, where there is curvature, else 0
    mu: float

    @staticmethod
    def at(
        x: np.ndarray, y: np.ndarray, weight: np.ndarray, mu: float, isotropic: bool, floor: float
    ) -> Image:
        shape = x.shape[1:]
        direction, stiff = np.empty_like(y), np.empty(shape, x.dtype)
        flat, labels = np.empty((2, *shape), np.bool_), np.empty(shape, np.uint32)
        bend(x, y, weight, isotropic, floor, direction, stiff, flat)
        components(flat, labels)
        sizes = np.bincount(labels.ravel()).astype(x.dtype)
        return Image(labels, sizes, direction, stiff, mu)

    @cached_property
    def _bonds(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(zones, rows, scale): as flat_loops has them, G's columns scaled."""
        c, count = len(self.direction), np.count_nonzero(self.stiff)
        zones = np.empty((count, 3), np.uint32)
        rows = np.empty((count, 2 * c - 1, c, 3), self.stiff.dtype)
        scale = np.empty((c, len(self.sizes)), self.stiff.dtype)
        bonds(self.direction, self.stiff, self.labels, zones, rows)
        rescale(self.mu, self.sizes, zones, rows, scale)
        return zones, rows, scale

    def means(self, v: np.ndarray) -> np.ndarray:
        """P v: the mean over each zone."""
        return (self._sums(v) / self.sizes)[:, self.labels]

    def _sums(self, v: np.ndarray) -> np.ndarray:  # (C, H, W) -> (C, zones)
        out = np.empty((len(v), len(self.sizes)), v.dtype)
        sums(self.labels, v, out)
        return out

    def solve(self, g: np.ndarray, tol: float) -> tuple[np.ndarray, float, int]:
        """(p, relative residual, products): p = P (P A P)^+ P g."""
        if not self.stiff.any():
            return self.means(g) / self.mu, 0.0, 1
        zones, rows, scale = self._bonds
        ground, b = self.mu * self.sizes * scale**2, scale * self._sums(g)
        u = np.empty_like(b)
        residual, products = conjugate_gradients(ground, zones, rows, b, u, tol, _LIMIT)
        return (scale * u)[:, self.labels], residual, products
