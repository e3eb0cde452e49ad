"""Compiled loops on the flat zones of an image: who belongs to whom, and the system on them."""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "reassoc"})


@compiled()
def bend(x, y, weight, isotropic, floor, direction, size, flat):
    """Where an image (C, H, W) with dual y (C, 2, H, W) jumps, and how.

    direction: Dx / |Dx| at jumps, for one jump a pixel (isotropic) or one a difference, else 0;
    size: |Dx| at the isotropic ones, else 0; flat: the differences that stay 0. A jump is known by
    |y + Dx| > weight, and larger than the floor, the accuracy of x.
    """
    channels, rows, columns = x.shape
    direction[:], size[:] = 0, 0
    for i in range(rows):
        n, r = min(i + 1, rows - 1), i if len(weight) > 1 else 0
        for j in range(columns):
            w, m = weight[r, j], min(j + 1, columns - 1)
            square, reach = 0.0, 0.0
            for c in range(channels):
                down, right = x[c, n, j] - x[c, i, j], x[c, i, m] - x[c, i, j]
                direction[c, 0, i, j], direction[c, 1, i, j] = down, right
                square += down**2 + right**2
                reach += (down + y[c, 0, i, j]) ** 2 + (right + y[c, 1, i, j]) ** 2
            jumps = square > floor**2 and reach > w**2
            flat[0, i, j] = flat[1, i, j] = w > 0 and not jumps
            if isotropic:
                scale = 1 / np.sqrt(square) if jumps else 0.0
                size[i, j] = np.sqrt(square) if jumps else 0.0
                direction[:, :, i, j] *= scale
                continue
            for k in range(2):  # one channel
                d = direction[0, k, i, j]
                jumps = abs(d) > floor and abs(d + y[0, k, i, j]) > w
                direction[0, k, i, j] = np.sign(d) if jumps else 0.0
                flat[k, i, j] = w > 0 and not jumps


@compiled()
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@compiled()
def components(flat, labels):
    """Number the components of the pixels that flat[0, i, j] (downward), flat[1, i, j] connect."""
    rows, columns = labels.shape
    parent = np.arange(rows * columns)
    for i in range(rows):
        for j in range(columns):
            here = i * columns + j
            if i + 1 < rows and flat[0, i, j]:
                a, b = _root(parent, here), _root(parent, here + columns)
                parent[max(a, b)] = min(a, b)
            if j + 1 < columns and flat[1, i, j]:
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
def curved(labels, weight, direction, size, corners, unit, stiff):
    """List the pixels that jump: the zones of each, of the one below and the one to its right, its
    direction, and weight / |Dx|."""
    rows, columns = labels.shape
    p = 0
    for i in range(rows):
        for j in range(columns):
            if size[i, j] > 0:
                corners[p, 0] = labels[i, j]
                corners[p, 1] = labels[min(i + 1, rows - 1), j]
                corners[p, 2] = labels[i, min(j + 1, columns - 1)]
                unit[p] = direction[:, :, i, j].T
                stiff[p] = weight[i if len(weight) > 1 else 0, j] / size[i, j]
                p += 1


@_fast
def slope(direction, p, out):
    """out = sum over channels and differences of direction D p, one a pixel."""
    channels, rows, columns = p.shape
    out[:] = 0
    for c in range(channels):
        for i in range(rows):
            n = min(i + 1, rows - 1)
            for j in range(columns):
                out[i, j] += direction[c, 0, i, j] * (p[c, n, j] - p[c, i, j])
            for j in range(columns - 1):
                out[i, j] += direction[c, 1, i, j] * (p[c, i, j + 1] - p[c, i, j])


@compiled()
def totals(labels, x, sums):
    """sums[k] = sum of x over zone k; x of (C, H, W), sums of (zones, C)."""
    sums[:] = 0
    for c in range(len(x)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                sums[labels[i, j], c] += x[c, i, j]


@compiled()
def spread_out(labels, values, x):
    """x = values[k] on zone k."""
    for c in range(len(x)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                x[c, i, j] = values[labels[i, j], c]


@_fast
def product(mass, corners, unit, stiff, u, out):
    """out = A u = (mass + sum over pixels that jump of D* stiff (1 - unit unit*) D) u, on zones."""
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
    """u with |b - A u| <= tol |b| in the norm of 1 / diagonal, A the system above; returns (the
    relative residual, the number of products)."""
    scale = np.empty_like(b)
    diagonal(mass, corners, unit, stiff, scale)
    r, z, image = b.copy(), b / scale, np.empty_like(b)
    d = z.copy()
    u[:] = 0
    first = old = _inner(r, z)
    for count in range(limit):
        if not old > tol * tol * first:
            return np.sqrt(old / first) if first > 0 else 0.0, count
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
    return np.sqrt(old / first), limit


@_fast
def _inner(a, b):
    total = 0.0
    for k in range(len(a)):
        for c in range(a.shape[1]):
            total += a[k, c] * b[k, c]
    return total
