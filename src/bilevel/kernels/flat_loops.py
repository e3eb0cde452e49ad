"""Compiled loops on the flat zones of an image: where it jumps, who belongs to whom, and the system
for a change that keeps the zones."""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "reassoc", "nsz"})
_NEAR = 5.0  # floors, up to which the size of a jump is too uncertain to divide by


@compiled()
def bend(x, y, weight, isotropic, floor, direction, stiff, flat):
    """Where an image (C, H, W) with dual y (C, 2, H, W) jumps, and how.

    direction: n = Dx / |Dx| at jumps, for one jump a pixel (isotropic) or one a difference, else 0;
    stiff: weight / |Dx| at the isotropic ones, else 0; flat: the differences that stay 0. A jump is
    known by |y + Dx| > weight, and larger than the floor, the accuracy of x; _NEAR floors are the
    least |Dx| to divide by. Returns how many pixels are stiff.
    """
    channels, rows, columns = x.shape
    count = 0
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
            stiff[i, j] = 0
            if isotropic:
                size = np.sqrt(square)
                jumps = size > floor and reach > w**2
                stiff[i, j] = w / max(size, _NEAR * floor) if jumps else 0.0
                count += stiff[i, j] > 0
                for c in range(channels):
                    direction[c, 0, i, j] *= 1 / size if jumps else 0.0
                    direction[c, 1, i, j] *= 1 / size if jumps else 0.0
                flat[0, i, j] = flat[1, i, j] = w > 0 and not jumps
                continue
            for k in range(2):  # one channel
                d = direction[0, k, i, j]
                jumps = abs(d) > floor and abs(d + y[0, k, i, j]) > w
                direction[0, k, i, j] = np.sign(d) if jumps else 0.0
                flat[k, i, j] = w > 0 and not jumps
    return count


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


@_fast
def sums(labels, v, out):
    """out[c, z] = the sum of v over the pixels of zone z, channel by channel."""
    out[:] = 0
    for c in range(len(v)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                out[c, labels[i, j]] += v[c, i, j]


@_fast
def lay(labels, u, out):
    """out = u[:, labels]: every pixel gets what its zone has."""
    for c in range(len(u)):
        for i in range(labels.shape[0]):
            for j in range(labels.shape[1]):
                out[c, i, j] = u[c, labels[i, j]]


@_fast
def slope(direction, p, out):
    """out = sum over channels and differences of n D p, one a pixel, or summed over a column."""
    channels, rows, columns = p.shape
    out[:] = 0
    for c in range(channels):
        for i in range(rows):
            here, below, line = p[c, i], p[c, min(i + 1, rows - 1)], out[min(i, len(out) - 1)]
            first, second = direction[c, 0, i], direction[c, 1, i]
            for j in range(columns):
                line[j] += first[j] * (below[j] - here[j])
            for j in range(columns - 1):
                line[j] += second[j] * (here[j + 1] - here[j])


@_fast
def _reflect(n, far, near, rows):
    """An orthonormal basis of all that is orthogonal to n, (C, 2), the differences scaled: what a
    reflection makes of all axes q but the first."""
    sign = 1.0 if n[0, 0] >= 0 else -1.0
    for q in range(1, 2 * len(n)):  # axis q - n_q v / (1 + |n_0|), v = n + sign axis 0
        part = n[q // 2, q % 2] / (1 + abs(n[0, 0]))
        for c in range(len(n)):
            down = (q == 2 * c) - part * (n[c, 0] + (sign if c == 0 else 0.0))
            right = (q == 2 * c + 1) - part * n[c, 1]
            rows[q - 1, c] = far * down, near * right


@_fast
def bonds(direction, stiff, labels, starts, zones, rows, size):
    """The second derivative of weight |D u| in the values u of the zones, as G* G.

    For a bond e, a pixel that jumps or ends its zone in its row, zones[e] = those of the pixels
    below and beside. Its own is the beside of e - 1, but in row i for e = starts[i], where it is
    labels[i, 0]; one more start ends the last row. rows[e]: of G, (2 C - 1, C, 2) factors of the
    differences to below and to beside, so that

        |G u|^2 = sum over e of stiff |(1 - n n*) D u|^2.

    To size, (C, zones), the row sums of |G|* |G| are added.
    """
    channels, _, height, width = direction.shape
    e, columns, zero = np.uintp(0), np.empty(width + 1, np.uintp), stiff.dtype.type(0)
    starts[0] = 0
    for i in range(height):
        own, under, held = labels[i], labels[min(i + 1, height - 1)], zero
        for j in columns[: _ends(stiff[i], own, columns)]:
            here, below, beside = own[j], under[j], own[min(j + 1, width - 1)]
            zones[e, 0], zones[e, 1] = below, beside
            root = np.sqrt(stiff[i, j])
            far, near = root if below != here else zero, root if beside != here else zero
            if channels == 1:
                down, right = far * direction[0, 1, i, j], -near * direction[0, 0, i, j]
                rows[e, 0, 0, 0], rows[e, 0, 0, 1] = down, right
                total = abs(down) + abs(right) + abs(down + right)
                size[0, here] += held + abs(down + right) * total
                size[0, below] += abs(down) * total
                held = abs(right) * total  # of the beside, whose turn is next
            else:
                _reflect(direction[:, :, i, j], far, near, rows[e])
                for row in rows[e]:
                    across = row[:, 0] + row[:, 1]
                    total = np.abs(row).sum() + np.abs(across).sum()
                    size[:, here] += np.abs(across) * total
                    size[:, below] += np.abs(row[:, 0]) * total
                    size[:, beside] += np.abs(row[:, 1]) * total
            e += np.uintp(1)
        size[0, own[width - 1]] += held
        starts[i + 1] = e


@_fast
def _ends(stiff, own, columns):
    """The columns of a row where it jumps or a zone ends, without a branch; returns how many."""
    count, last = np.uintp(0), len(own) - 1
    for j in range(last):
        columns[count] = j
        count += np.uintp((stiff[j] != 0) | (own[j] != own[j + 1]))
    columns[count] = last
    return count + np.uintp(stiff[last] != 0)


@_fast
def _resist(labels, starts, zones, rows, v, out):
    """out += G* G v."""
    channels, zero = len(v), v.dtype.type(0)
    if channels == 1:
        _resist_alone(labels, starts, zones, rows.reshape((len(rows), 2)), v[0], out[0])
        return
    for m in range(len(labels)):
        i = labels[m, 0]
        for e in range(starts[m], starts[m + 1]):
            j, k = zones[e, 0], zones[e, 1]
            for row in rows[e]:
                along = zero
                for c in range(channels):
                    along += row[c, 0] * (v[c, j] - v[c, i]) + row[c, 1] * (v[c, k] - v[c, i])
                for c in range(channels):
                    down, right = row[c, 0] * along, row[c, 1] * along
                    out[c, i] -= down + right
                    out[c, j] += down
                    out[c, k] += right
            i = k


@_fast
def _resist_alone(labels, starts, zones, rows, v, out):
    """`_resist` in one channel: what a zone gets as the one beside is carried to its own turn."""
    for m in range(len(labels)):
        i = labels[m, 0]
        here, carried = v[i], v.dtype.type(0)
        for e in range(starts[m], starts[m + 1]):
            j, k = zones[e, 0], zones[e, 1]
            beside = v[k]
            along = rows[e, 0] * (v[j] - here) + rows[e, 1] * (beside - here)
            down, right = rows[e, 0] * along, rows[e, 1] * along
            out[i] += carried - (down + right)
            out[j] += down
            i, here, carried = k, beside, right
        out[i] += carried


@_fast
def conjugate_gradients(ground, size, labels, starts, zones, rows, b, u, tol, limit):
    """u with |b - M u| <= tol |b|, M = ground + G* G; returns (the relative residual, the number of
    products). Vectors are (C, zones), and their norms weighted by 1 / size, the preconditioner.

    It starts at b / ground, which is the answer for all that G does not see, such as the image
    itself; at the best multiple of it where rounding there would be above the tolerance.
    """
    d, image, weights = b / ground, b.copy(), b.dtype.type(1) / size
    x, rest, step, moved = u.ravel(), b.ravel().copy(), d.ravel(), image.ravel()
    by, weigh = weights.ravel(), ground.ravel()
    x[:] = 0
    _resist(labels, starts, zones, rows, d, image)
    first = far = along = inner = 0.0
    for k in range(len(x)):
        first += by[k] * rest[k] * rest[k]
        far += by[k] * moved[k] * moved[k]
        along += step[k] * rest[k]
        inner += step[k] * moved[k]
    if first == 0:
        return 0.0, 1
    rounding = np.finfo(b.dtype).eps * np.sqrt(far / first)
    old = _advance(1.0 if rounding < tol / 10 else along / inner, step, moved, by, x, rest)
    turn = b.dtype.type(0)
    for count in range(1, limit):
        if not old > tol * tol * first:  # or NaN
            return 0.0 if old == 0 else np.sqrt(old / first), count
        for k in range(len(x)):
            step[k] = by[k] * rest[k] + turn * step[k]
        for k in range(len(x)):
            moved[k] = weigh[k] * step[k]
        _resist(labels, starts, zones, rows, d, image)
        inner = 0.0
        for k in range(len(x)):
            inner += step[k] * moved[k]
        new = _advance(old / inner, step, moved, by, x, rest)
        turn, old = b.dtype.type(new / old), new
    return np.sqrt(old / first), limit


@_fast
def _advance(length, step, moved, by, x, rest):
    """x and the rest after a step of this length; returns the rest's squared norm."""
    length, squared = x.dtype.type(length), 0.0
    for k in range(len(x)):
        x[k] += length * step[k]
        rest[k] -= length * moved[k]
        squared += by[k] * rest[k] * rest[k]
    return squared
