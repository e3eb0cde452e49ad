"""Compiled loops on the flat zones of an image: who belongs to whom, and the system on them."""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "reassoc"})


@compiled()
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled()
def zones(down, right, labels):
    """Number the components of the pixels that the links down[i, j], right[i, j] connect."""
    rows, columns = labels.shape
    parent = np.arange(rows * columns)
    for i in range(rows):
        for j in range(columns):
            here = i * columns + j
            if i + 1 < rows and down[i, j]:
                a, b = _root(parent, here), _root(parent, here + columns)
                parent[max(a, b)] = min(a, b)
            if j + 1 < columns and right[i, j]:
                a, b = _root(parent, here), _root(parent, here + 1)
                parent[max(a, b)] = min(a, b)
    count = 0
    for here in range(rows * columns):  # the root is the first pixel of its zone
        i, j = here // columns, here % columns
        if parent[here] == here:
            labels[i, j] = count
            count += 1
        else:
            root = _root(parent, here)
            labels[i, j] = labels[root // columns, root % columns]
    return count


@compiled()
def gather(labels, x, sums):
    """sums[k] = sum of x over zone k; x of (C, H, W), sums of (zones, C)."""
    sums[:] = 0
    for c in range(len(x)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                sums[labels[i, j], c] += x[c, i, j]


@compiled()
def scatter(labels, values, x):
    """x = values[k] on zone k."""
    for c in range(len(x)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                x[c, i, j] = values[labels[i, j], c]


@_fast
def product(mass, corners, unit, stiff, u, out):
    """out = (mass + sum over the bent pixels of D* stiff (1 - unit unit*) D) u, on zones.

    corners: the zones of a pixel, of the one below and of the one to its right.
    """
    channels = u.shape[1]
    for k in range(len(u)):
        for c in range(channels):
            out[k, c] = mass[k] * u[k, c]
    for p in range(len(corners)):
        here, below, beside = corners[p, 0], corners[p, 1], corners[p, 2]
        along = 0.0
        for c in range(channels):
            along += unit[p, 0, c] * (u[below, c] - u[here, c])
            along += unit[p, 1, c] * (u[beside, c] - u[here, c])
        for c in range(channels):
            d = stiff[p] * (u[below, c] - u[here, c] - unit[p, 0, c] * along)
            e = stiff[p] * (u[beside, c] - u[here, c] - unit[p, 1, c] * along)
            out[below, c] += d
            out[beside, c] += e
            out[here, c] -= d + e


@_fast
def diagonal(mass, corners, unit, stiff, out):
    """The diagonal of the system above."""
    for k in range(len(out)):
        out[k] = mass[k]
    for p in range(len(corners)):
        here, below, beside = corners[p, 0], corners[p, 1], corners[p, 2]
        for c in range(out.shape[1]):
            a, b = unit[p, 0, c], unit[p, 1, c]
            down = 1.0 if below != here else 0.0
            right = 1.0 if beside != here else 0.0
            both = down + right - (a * down + b * right) ** 2
            out[below, c] += stiff[p] * (1 - a * a) * down
            out[beside, c] += stiff[p] * (1 - b * b) * right
            out[here, c] += stiff[p] * both


@_fast
def conjugate_gradients(mass, corners, unit, stiff, b, u, tol, limit):
    """u with |b - A u| <= tol |b|, A the system above, preconditioned by its diagonal.

    Returns (the relative residual, the number of products).
    """
    scale = np.empty_like(b)
    diagonal(mass, corners, unit, stiff, scale)
    r, z, image = b.copy(), b / scale, np.empty_like(b)
    d = z.copy()
    u[:] = 0
    size = np.sqrt(_inner(b, b))
    old = _inner(r, z)
    for count in range(limit):
        left = np.sqrt(_inner(r, r))
        if left <= tol * size:
            return left / max(size, 1e-300), count
        product(mass, corners, unit, stiff, d, image)
        step = old / _inner(d, image)
        for k in range(len(u)):
            for c in range(u.shape[1]):
                u[k, c] += step * d[k, c]
                r[k, c] -= step * image[k, c]
                z[k, c] = r[k, c] / scale[k, c]
        new = _inner(r, z)
        for k in range(len(u)):
            for c in range(u.shape[1]):
                d[k, c] = z[k, c] + new / old * d[k, c]
        old = new
    return np.sqrt(_inner(r, r)) / max(size, 1e-300), limit


@_fast
def _inner(a, b):
    total = 0.0
    for k in range(len(a)):
        for c in range(a.shape[1]):
            total += a[k, c] * b[k, c]
    return total
