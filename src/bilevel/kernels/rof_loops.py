"""Compiled loops of the ROF kernel: Chambolle-Pock sweeps over one image, several at a time.

A sweep goes down the rows; sweep t + 1 may follow one row behind sweep t. So the rows between the
first and the last of a group of sweeps stay in the cache, and memory is read once a group
(wavefront temporal blocking). The arithmetic does not depend on the grouping.

A volume is the rows of its planes one after the other, `height` a plane; sweep t + 1 follows one
plane behind. x is (channels, rows, columns), y (channels, dims, rows, columns): the differences to
the row in the next plane (dims = 3), to the next row (dims > 1), to the next column. y is 0 across
the far edges, and stays.

Rows are named by their index, not sliced: views are counted, for a tenth of the time of a row. A
loop writes one array, or two where it reads few: LLVM's alias checks stop the vectoriser else.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "nsz", "arcp", "afn", "reassoc"})  # NaN and inf stay


# fmt: off


@_fast
def _next_rows(i, rows, height):
    """(that in the next plane, that below), i itself where there is none."""
    return i + height if i + height < rows else i, i + 1 if (i + 1) % height else i


@_fast
def _move_row(x_bar, c, i, behind, below, y, o, sigma):
    """y += sigma D x_bar on row i of channel c, which is row o of y."""
    dims, m = y.shape[1], y.shape[3]
    if dims > 2:
        for j in range(m):
            y[c, 0, o, j] += sigma * (x_bar[c, behind, j] - x_bar[c, i, j])
    if dims > 1:
        for j in range(m):
            y[c, dims - 2, o, j] += sigma * (x_bar[c, below, j] - x_bar[c, i, j])
    for j in range(m - 1):
        y[c, dims - 1, o, j] += sigma * (x_bar[c, i, j + 1] - x_bar[c, i, j])


@_fast
def _clip_rows(y, i, weight, r):
    """Every difference on row i in [-weight, weight]."""
    channels, dims, _, m = y.shape
    for c in range(channels):
        for d in range(dims):
            for j in range(m):
                w = weight[r, j]
                y[c, d, i, j] = min(max(y[c, d, i, j], -w), w)


@_fast
def _shrink_rows(y, i, weight, r, tiny, t):
    """All differences of a pixel of row i, those of all channels, in the ball of radius weight."""
    channels, dims, _, m = y.shape
    t[:] = y.dtype.type(0)
    for c in range(channels):
        for d in range(dims):
            for j in range(m):
                t[j] += y[c, d, i, j] * y[c, d, i, j]
    for j in range(m):
        w = weight[r, j]
        t[j] = w / math.sqrt(max(t[j], w * w, tiny))
    for c in range(channels):
        for d in range(dims):
            for j in range(m):
                y[c, d, i, j] *= t[j]


@_fast
def _dual_row(x_bar, i, height, y, sigma, weight, isotropic, tiny, t):
    """y = proj(y + sigma D x_bar) on row i of all channels."""
    channels, _, rows, _ = y.shape
    behind, below = _next_rows(i, rows, height)
    r = i if len(weight) > 1 else 0
    for c in range(channels):
        _move_row(x_bar, c, i, behind, below, y, i, sigma)
    if isotropic:
        _shrink_rows(y, i, weight, r, tiny, t)
    else:
        _clip_rows(y, i, weight, r)


@_fast
def _pull_row(y, c, i, height, out, o):
    """out[c, o] = -(D* y) on row i of channel c; what stands across the far edges is not read."""
    dims, rows, m = y.shape[1:]
    out[c, o, m - 1] = y.dtype.type(0)
    if m > 1:
        out[c, o, 0] = y[c, dims - 1, i, 0]
        for j in range(1, m - 1):
            out[c, o, j] = y[c, dims - 1, i, j] - y[c, dims - 1, i, j - 1]
        out[c, o, m - 1] = -y[c, dims - 1, i, m - 2]
    behind, below = _next_rows(i, rows, height)
    for d in range(dims - 1):
        down = d == dims - 2
        before = i - (1 if down else height)
        has_before = i % height > 0 if down else before >= 0
        has_next = (below if down else behind) > i
        if has_before and has_next:
            for j in range(m):
                out[c, o, j] += y[c, d, i, j] - y[c, d, before, j]
        elif has_next:
            for j in range(m):
                out[c, o, j] += y[c, d, i, j]
        elif has_before:
            for j in range(m):
                out[c, o, j] -= y[c, d, before, j]


@_fast
def _descend(target, mu, r, c, i, j, pull, x, x_bar, tau, theta):
    """x = prox(x - tau D* y), x_bar = x + theta (x - old x) at a pixel; pull = -(D* y) there."""
    one, s = x.dtype.type(1), tau * mu[r, j]
    new = (x[c, i, j] + tau * pull + s * target[c, i, j]) * (one / (one + s))
    x_bar[c, i, j] = new + theta * (new - x[c, i, j])
    x[c, i, j] = new


@_fast
def _primal_row(target, mu, r, c, i, height, y, x, x_bar, tau, theta):
    """_descend on row i of channel c; of an image in one pass. There row -1, the last one, serves
    above the first, and the end of the row above left of a row: y is 0 at both."""
    if y.shape[1] == 2:
        for j in range(x.shape[2]):
            left = y[c, 1, i, np.uint64(j - 1)]  # unsigned: no wrap to the end of this row
            pull = y[c, 0, i, j] - y[c, 0, i - 1, j] + (y[c, 1, i, j] - left)
            _descend(target, mu, r, c, i, j, pull, x, x_bar, tau, theta)
    else:
        _pull_row(y, c, i, height, x_bar, i)
        for j in range(x.shape[2]):
            _descend(target, mu, r, c, i, j, x_bar[c, i, j], x, x_bar, tau, theta)


@_fast
def sweeps(target, weight, mu, isotropic, height, begin, end, x, x_bar, y, tau, sigma, theta, tiny):
    """Sweeps with the steps tau[k], sigma[k], theta[k], in place, on one image.

    weight, mu: (rows, columns), or (1, columns) for all rows. tiny: the least positive number of
    the dtype. begin, end: (row, slope), the part of the image, whose edges move by `slope` lags a
    sweep: 0 at an edge of the image; -1 and 1 keep to what depends on these rows alone.
    """
    channels, rows, columns = x.shape
    lag = 1 if height == rows else height
    t = np.empty(columns, x.dtype)
    fronts = (len(tau) - 1) * (1 + end[1]) + max(end[1], 0)
    for front in range(begin[0], end[0] + fronts * lag):
        for k in range(len(tau)):
            i = front - k * lag
            low, high = begin[0] + begin[1] * k * lag, end[0] + end[1] * k * lag
            if low <= i < high:
                _dual_row(x_bar, i, height, y, sigma[k], weight, isotropic, tiny, t)
            low, high = low + max(begin[1], 0) * lag, high + max(end[1], 0) * lag
            if low <= i < high:
                r = i if len(mu) > 1 else 0
                for c in range(channels):
                    _primal_row(target, mu, r, c, i, height, y, x, x_bar, tau[k], theta[k])


@_fast
def _misfit_row(target, mu, r, c, i, x, pull):
    """(mu |x - target|^2, |mu (x - target) - pull|^2 / mu) on a row."""
    fit, slack = x.dtype.type(0), x.dtype.type(0)
    for j in range(x.shape[2]):
        d = x[c, i, j] - target[c, i, j]
        s = mu[r, j] * d - pull[c, 0, j]
        fit += mu[r, j] * d * d
        slack += s * s / mu[r, j]
    return fit, slack


@_fast
def _tension_row(steps, y, i, weight, r, isotropic, t):
    """(sum of weight |Dx|, that less <Dx, y>) on row i of all channels, steps = Dx there."""
    channels, dims, _, m = y.shape
    total, slack = y.dtype.type(0), y.dtype.type(0)
    t[:] = total
    for c in range(channels):
        for d in range(dims):
            if isotropic:
                for j in range(m):
                    t[j] += steps[c, d, 0, j] * steps[c, d, 0, j]
            else:
                for j in range(m):
                    t[j] += abs(steps[c, d, 0, j])
    for j in range(m):
        t[j] = weight[r, j] * (math.sqrt(t[j]) if isotropic else t[j])
        total += t[j]
    for c in range(channels):
        for d in range(dims):
            for j in range(m):
                t[j] -= steps[c, d, 0, j] * y[c, d, i, j]
    for j in range(m):
        slack += t[j]
    return total, slack


@_fast
def energies(target, weight, mu, isotropic, height, begin, end, x, y, found):
    """found[i] = (P - D, P) of row i at x and a feasible y, for the rows from begin to end.

    P - D = |mu (x - target) + D* y|^2 / (2 mu) + sum weight |Dx| - <Dx, y>: nothing cancels.
    """
    channels, dims, rows, m = y.shape
    steps, pull = np.empty((channels, dims, 1, m), x.dtype), np.empty((channels, 1, m), x.dtype)
    t, one = np.empty(m, x.dtype), x.dtype.type(1)
    for i in range(begin, end):
        r = i if len(weight) > 1 else 0
        q = i if len(mu) > 1 else 0
        behind, below = _next_rows(i, rows, height)
        steps[:] = x.dtype.type(0)
        for c in range(channels):
            _move_row(x, c, i, behind, below, steps, 0, one)
        primal, gap = _tension_row(steps, y, i, weight, r, isotropic, t)
        for c in range(channels):
            _pull_row(y, c, i, height, pull, 0)
            fit, slack = _misfit_row(target, mu, q, c, i, x, pull)
            primal += fit / 2
            gap += slack / 2
        found[i, 0] = gap
        found[i, 1] = primal


@_fast
def ascend(x_bar, y, sigma, weight, isotropic, height, tiny, out):
    """out = proj(y + sigma D x_bar)."""
    channels, dims, rows, m = y.shape
    t = np.empty(m, y.dtype)
    for i in range(rows):
        for c in range(channels):
            for d in range(dims):
                for j in range(m):
                    out[c, d, i, j] = y[c, d, i, j]
        _dual_row(x_bar, i, height, out, sigma, weight, isotropic, tiny, t)


@_fast
def pull(y, height, out):
    """out = D* y."""
    for c in range(len(y)):
        for i in range(y.shape[2]):
            _pull_row(y, c, i, height, out, i)
            for j in range(y.shape[3]):
                out[c, i, j] = -out[c, i, j]
