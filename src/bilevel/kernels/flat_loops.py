"""Compiled loops on the flat zones of an image: where it jumps, who belongs to whom, and the system
for a change that keeps the zones."""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "reassoc", "nsz"})


@compiled()
def bend(x, y, weight, isotropic, floor, direction, stiff, flat):
    """Where an image (C, H, W) with dual y (C, 2, H, W) jumps, and how.

    direction: n = Dx / |Dx| at jumps, for one jump a pixel (isotropic) or one a difference, else 0;
    stiff: weight / |Dx| at the isotropic ones, else 0; flat: the differences that stay 0. A jump is
    known by |y + Dx| > weight, and larger than the floor, the accuracy of x.
    """
    channels, rows, columns = x.shape
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
                stiff[i, j] = w / size if jumps else 0.0
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
def slope(direction, p, out):
    """out = sum over channels and differences of n D p, one a pixel."""
    channels, rows, columns = p.shape
    out[:] = 0
    for c in range(channels):
        for i in range(rows):
            here, below, line = p[c, i], p[c, min(i + 1, rows - 1)], out[i]
            first, second = direction[c, 0, i], direction[c, 1, i]
            for j in range(columns):
                line[j] += first[j] * (below[j] - here[j])
            for j in range(columns - 1):
                line[j] += second[j] * (here[j + 1] - here[j])


@compiled()
def bonds(direction, stiff, labels, zones, rows):
    """The second derivative of weight |D u| in the values u of the zones, as G* G.

    zones[e] = those of a jumping pixel e, of the one below and of the one beside; rows[e]: of G,
    (2 C - 1, C, 3) numbers at these, so that |G u|^2 = sum over e of stiff |(1 - n n*) D u|^2. Each
    is a vector of an orthonormal basis of all that is orthogonal to n, by a reflection.
    """
    channels, _, height, width = direction.shape
    e = 0
    for i in range(height):
        for j in range(width):
            if stiff[i, j] == 0:
                continue
            here, below = labels[i, j], labels[min(i + 1, height - 1), j]
            beside = labels[i, min(j + 1, width - 1)]
            zones[e, 0], zones[e, 1], zones[e, 2] = here, below, beside
            n, root = direction[:, :, i, j], np.sqrt(stiff[i, j])
            sign = 1.0 if n[0, 0] >= 0 else -1.0
            # t = axis q - n_q v / (1 + |n_0|), v = n + sign axis 0
            for q in range(1, 2 * channels):
                for c in range(channels):
                    part = n[q // 2, q % 2] / (1 + abs(n[0, 0]))
                    down = (q == 2 * c) - part * (n[c, 0] + (sign if c == 0 else 0.0))
                    right = (q == 2 * c + 1) - part * n[c, 1]
                    down, right = root * down * (below != here), root * right * (beside != here)
                    rows[e, q - 1, c] = -(down + right), down, right
            e += 1


@compiled()
def rescale(mu, sizes, zones, rows, scale):
    """scale = 1 / sqrt(the diagonal of mu |zone| + G* G), (C, zones), and G's columns times it."""
    for c in range(len(scale)):
        scale[c] = mu * sizes
    for e in range(len(zones)):
        for k in range(3):
            for c in range(len(scale)):
                for row in rows[e]:
                    scale[c, zones[e, k]] += row[c, k] ** 2
    scale[:] = 1 / np.sqrt(scale)
    for e in range(len(zones)):
        for k in range(3):
            for c in range(len(scale)):
                for row in rows[e]:
                    row[c, k] *= scale[c, zones[e, k]]


@_fast
def _resist(zones, rows, v, out):
    """out += G* G v; returns |G v|^2."""
    if len(v) == 1:
        return _resist_alone(zones, rows[:, 0, 0], v[0], out[0])
    total, channels = 0.0, len(v)
    for e in range(len(zones)):
        i, j, k = zones[e, 0], zones[e, 1], zones[e, 2]
        for row in rows[e]:
            along = v.dtype.type(0)
            for c in range(channels):
                along += row[c, 0] * v[c, i] + row[c, 1] * v[c, j] + row[c, 2] * v[c, k]
            for c in range(channels):
                out[c, i] += row[c, 0] * along
                out[c, j] += row[c, 1] * along
                out[c, k] += row[c, 2] * along
            total += along * along
    return total


@_fast
def _resist_alone(zones, rows, v, out):
    """`_resist` in one channel: what a zone was beside is carried to where it is next."""
    total, carried = 0.0, v.dtype.type(0)
    if not len(zones):
        return total
    last = zones[0, 0]
    value = v[last]
    for e in range(len(zones)):
        i, j, k = zones[e, 0], zones[e, 1], zones[e, 2]
        if i != last:
            out[last] += carried
            carried, value = v.dtype.type(0), v[i]
        a, b, c = rows[e, 0], rows[e, 1], rows[e, 2]
        beside = v[k]
        along = a * value + b * v[j] + c * beside
        out[i] += carried + a * along
        out[j] += b * along
        carried, value, last = c * along, beside, k
        total += along * along
    out[last] += carried
    return total


@_fast
def _image(ground, zones, rows, v, out):
    """out = M v, M = ground + G* G; returns <v, M v>. All vectors are (C, zones)."""
    inner, weigh, step, moved = 0.0, ground.ravel(), v.ravel(), out.ravel()
    for k in range(len(step)):
        moved[k] = weigh[k] * step[k]
        inner += moved[k] * step[k]
    return inner + _resist(zones, rows, v, out)


@_fast
def conjugate_gradients(ground, zones, rows, b, u, tol, limit):
    """u with |b - M u| <= tol |b|; returns (the relative residual, the number of products).

    It starts at the best multiple of b / ground, which is the answer for all that G does not see,
    such as the image itself.
    """
    d, image = b / ground, np.empty_like(b)
    x, rest, step, moved = u.ravel(), b.ravel().copy(), d.ravel(), image.ravel()
    x[:] = 0
    first = old = np.dot(rest, rest)
    along = np.dot(rest, step)
    for count in range(limit):
        if not old > tol * tol * first:
            return np.sqrt(old / first) if first > 0 else 0.0, count
        length = b.dtype.type(along / _image(ground, zones, rows, d, image))
        new = 0.0
        for k in range(len(x)):
            x[k] += length * step[k]
            rest[k] -= length * moved[k]
            new += rest[k] * rest[k]
        turn = b.dtype.type(new / old if count else 0.0)  # from the start on, by residuals
        for k in range(len(x)):
            step[k] = rest[k] + turn * step[k]
        along = old = new
    return np.sqrt(old / first), limit
