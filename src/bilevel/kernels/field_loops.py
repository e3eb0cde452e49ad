"""Compiled loops over vector fields of images; those from `begin` to `end` of a batch.

A loop writes one array along its rows: so the vectoriser takes it.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "nsz", "arcp", "afn", "reassoc"})  # NaN and inf stay
_HALF = math.sqrt(0.5)


@_fast
def differences(begin, end, x, out):
    """x (N, 1, H, W) -> (N, 2, H, W): forward differences, 0 at the far edges."""
    rows, m = x.shape[2:]
    zero = x.dtype.type(0)
    for b in range(begin, end):
        for i in range(rows):
            below = min(i + 1, rows - 1)
            for j in range(m):
                out[b, 0, i, j] = x[b, 0, below, j] - x[b, 0, i, j] if i < below else zero
            for j in range(m - 1):
                out[b, 1, i, j] = x[b, 0, i, j + 1] - x[b, 0, i, j]
            out[b, 1, i, m - 1] = zero


@_fast
def symmetrized(begin, end, w, out):
    """w (N, 2, H, W) -> (N, 3, H, W): backward differences, 0 at both edges for the first two
    entries, at the near ones for the third."""
    rows, m = w.shape[2:]
    half, zero = w.dtype.type(_HALF), w.dtype.type(0)
    for b in range(begin, end):
        for i in range(rows):
            before, inside = max(i - 1, 0), 0 < i < rows - 1
            for j in range(m):
                out[b, 0, i, j] = w[b, 0, i, j] - w[b, 0, before, j] if inside else zero
            out[b, 1, i, 0] = zero
            for j in range(1, m - 1):
                out[b, 1, i, j] = w[b, 1, i, j] - w[b, 1, i, j - 1]
            out[b, 1, i, m - 1] = zero
            for j in range(m):
                out[b, 2, i, j] = half * (w[b, 1, i, j] - w[b, 1, before, j]) if i > 0 else zero
            for j in range(1, m):
                out[b, 2, i, j] += half * (w[b, 0, i, j] - w[b, 0, i, j - 1])


@_fast
def symmetrized_adjoint(begin, end, y, out):
    """y (N, 3, H, W) -> (N, 2, H, W)."""
    rows, m = y.shape[2:]
    half, zero = y.dtype.type(_HALF), y.dtype.type(0)
    for b in range(begin, end):
        for i in range(rows):
            for j in range(m):
                out[b, 0, i, j] = half * y[b, 2, i, j]
            out[b, 0, i, 0] = zero
            for j in range(m - 1):
                out[b, 0, i, j] -= half * y[b, 2, i, j + 1]
            if 0 < i < rows - 1:
                for j in range(m):
                    out[b, 0, i, j] += y[b, 0, i, j]
            if i + 1 < rows - 1:
                for j in range(m):
                    out[b, 0, i, j] -= y[b, 0, i + 1, j]
            for j in range(m):
                out[b, 1, i, j] = half * y[b, 2, i, j] if i > 0 else zero
            if i + 1 < rows:
                for j in range(m):
                    out[b, 1, i, j] -= half * y[b, 2, i + 1, j]
            for j in range(1, m - 1):
                out[b, 1, i, j] += y[b, 1, i, j]
            for j in range(m - 2):
                out[b, 1, i, j] -= y[b, 1, i, j + 1]


@_fast
def onto_balls(begin, end, y, out, limits):
    """y (groups, size, n): the vectors along dim 1 shrunk to length limits[0]; limits[1]: the least
    positive number."""
    _, size, n = y.shape
    radius, tiny, one, zero = limits[0], limits[1], y.dtype.type(1), y.dtype.type(0)
    t = np.empty(n, y.dtype)
    for b in range(begin, end):
        t[:] = zero
        for c in range(size):
            for j in range(n):
                t[j] += y[b, c, j] * y[b, c, j]
        for j in range(n):
            t[j] = min(radius / math.sqrt(max(t[j], tiny)), one)
        for c in range(size):
            for j in range(n):
                out[b, c, j] = y[b, c, j] * t[j]
