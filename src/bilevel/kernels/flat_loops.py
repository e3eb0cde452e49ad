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


@compiled()
def gathered(labels, count):
    """(members, begin): the pixels of zone z of at least two are members[begin[z] : begin[z + 1]].

    labels: (H W,).
    """
    sizes = np.zeros(count, np.int32)
    for label in labels:
        sizes[label] += 1
    begin, place = np.zeros(count + 1, np.int32), np.empty(count, np.int32)
    zones, total = 0, 0
    for label in range(count):
        place[label] = total if sizes[label] > 1 else -1
        if sizes[label] > 1:
            total += sizes[label]
            zones += 1
            begin[zones] = total
    members = np.empty(total, np.int32)
    for pixel in range(len(labels)):
        label = labels[pixel]
        if place[label] >= 0:
            members[place[label]] = pixel
            place[label] += 1
    return members, begin[: zones + 1]


@_fast
def level(members, begin, v):
    """P v in place: the mean over each zone, channel by channel; v of (C, H W)."""
    for image in v:
        for z in range(len(begin) - 1):
            zone, total = members[begin[z] : begin[z + 1]], 0.0
            for k in zone:
                total += image[k]
            mean = total / len(zone)
            for k in zone:
                image[k] = mean


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


@_fast
def product(mu, direction, stiff, p, along, out):
    """out = A p = (mu + D* stiff (1 - n n*) D) p; along: room for n* D p, one a pixel."""
    channels, rows, m = p.shape
    slope(direction, p, along)
    flow = np.zeros((3, m), p.dtype)  # out of a row's pixels: downward, from above, to the right
    for c in range(channels):
        flow[:2] = 0
        for i in range(rows):
            here, below, image = p[c, i], p[c, min(i + 1, rows - 1)], out[c, i]
            down, above, right = flow[i % 2], flow[1 - i % 2], flow[2]
            s, a, first, second = stiff[i], along[i], direction[c, 0, i], direction[c, 1, i]
            for j in range(m):
                down[j] = s[j] * (below[j] - here[j] - first[j] * a[j])
            for j in range(m - 1):
                right[j] = s[j] * (here[j + 1] - here[j] - second[j] * a[j])
            if i + 1 == rows:
                down[:] = 0
            for j in range(m):
                image[j] = mu * here[j] - down[j] + above[j] - right[j]
            for j in range(1, m):
                image[j] += right[j - 1]


@compiled()
def scales(mu, direction, stiff, labels, count, out):
    """out = |zone| / (the diagonal entry of A's restriction to the zones), at every pixel."""
    channels, rows, columns = out.shape
    entry, size = np.zeros((channels, count)), np.zeros(count)
    for i in range(rows):
        n = min(i + 1, rows - 1)
        for j in range(columns):
            m, s = min(j + 1, columns - 1), stiff[i, j]
            here, below, beside = labels[i, j], labels[n, j], labels[i, m]
            size[here] += 1
            down, right = 1.0 if below != here else 0.0, 1.0 if beside != here else 0.0
            for c in range(channels):
                a, b = direction[c, 0, i, j] * down, direction[c, 1, i, j] * right
                entry[c, below] += s * (down - a * a)
                entry[c, beside] += s * (right - b * b)
                entry[c, here] += mu + s * (down + right - (a + b) ** 2)
    for c in range(channels):
        for i in range(rows):
            for j in range(columns):
                out[c, i, j] = size[labels[i, j]] / entry[c, labels[i, j]]


@_fast
def conjugate_gradients(mu, direction, stiff, members, begin, scale, b, p, tol, limit):
    """p = P p with |P b - P A p| <= tol |P b| in the norm of the scales; returns (the relative
    residual, the number of products)."""
    image, along = np.empty_like(b), np.empty(b.shape[1:], b.dtype)
    pixels = (len(b), b[0].size)
    flat_image, flat_p, weigh = image.reshape(pixels), p.reshape(pixels).ravel(), scale.ravel()
    r = b.copy()
    level(members, begin, r.reshape(pixels))
    r = r.ravel()
    step_of_p = weigh * r
    d = step_of_p.reshape(b.shape)
    flat_p[:] = 0
    first = old = _weighed(r, weigh)
    for count in range(limit):
        if not old > tol * tol * first:
            return np.sqrt(old / first) if first > 0 else 0.0, count
        product(mu, direction, stiff, d, along, image)
        level(members, begin, flat_image)
        new_image = flat_image.ravel()
        step = b.dtype.type(old / _inner(step_of_p, new_image))
        new = 0.0
        for k in range(len(r)):
            flat_p[k] += step * step_of_p[k]
            r[k] -= step * new_image[k]
            new += r[k] * r[k] * weigh[k]
        turn = b.dtype.type(new / old)
        for k in range(len(r)):
            step_of_p[k] = weigh[k] * r[k] + turn * step_of_p[k]
        old = new
    return np.sqrt(old / first), limit


@_fast
def _inner(a, b):
    total = 0.0
    for k in range(len(a)):
        total += a[k] * b[k]
    return total


@_fast
def _weighed(r, weigh):
    total = 0.0
    for k in range(len(r)):
        total += r[k] * r[k] * weigh[k]
    return total
