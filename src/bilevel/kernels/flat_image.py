"""The flat zones of an image, and linear systems on what is constant on each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .flat_loops import bend, bonds, components, conjugate_gradients, lay, sums

_LIMIT = 20_000  # products of one solve


@dataclass(frozen=True, eq=False)
class Image:
    """The zones of one image, and how it jumps between them."""

    labels: np.ndarray  # (H, W): the zone of a pixel
    sizes: np.ndarray  # (zones,)
    direction: np.ndarray  # (C, 2, H, W): n = Dx / |Dx| where x jumps, else 0
    stiff: np.ndarray  # (H, W): weight / |Dx| there, where there is curvature, else 0
    bent: int  # the pixels where there is
    mu: float

    @staticmethod
    def at(
        x: np.ndarray, y: np.ndarray, weight: np.ndarray, mu: float, isotropic: bool, floor: float
    ) -> Image:
        shape = x.shape[1:]
        direction, stiff = np.empty_like(y), np.empty(shape, x.dtype)
        flat, labels = np.empty((2, *shape), np.bool_), np.empty(shape, np.uint32)
        bent = bend(x, y, weight, isotropic, floor, direction, stiff, flat)
        components(flat, labels)
        sizes = np.bincount(labels.ravel()).astype(x.dtype)
        return Image(labels, sizes, direction, stiff, bent, mu)

    @cached_property
    def _bonds(self) -> tuple[np.ndarray, ...]:
        """(ground, size, labels, starts, zones, rows): the system, as flat_loops has it."""
        c, h, w = len(self.direction), *self.labels.shape
        ground = np.repeat(self.mu * self.sizes[None], c, axis=0)
        starts = np.empty(h + 1, np.uintp)
        zones = np.empty((h * w + 1, 2), np.uint32)
        rows = np.empty((h * w + 1, 2 * c - 1, c, 2), self.stiff.dtype)
        size = ground.copy()
        bonds(self.direction, self.stiff, self.labels, starts, zones, rows, size)
        return ground, size, self.labels, starts, zones, rows

    def _sums(self, v: np.ndarray) -> np.ndarray:  # (C, H, W) -> (C, zones)
        out = np.empty((len(v), len(self.sizes)), v.dtype)
        sums(self.labels, v, out)
        return out

    def solve(self, g: np.ndarray, tol: float, p: np.ndarray) -> tuple[float, int]:
        """p = P (P A P)^+ P g; returns (relative residual, products)."""
        b = self._sums(g)
        if not self.bent:
            lay(self.labels, b / (self.mu * self.sizes), p)
            return 0.0, 1
        u = np.empty_like(b)
        residual, products = conjugate_gradients(*self._bonds, b, u, tol, _LIMIT)
        lay(self.labels, u, p)
        return residual, products
