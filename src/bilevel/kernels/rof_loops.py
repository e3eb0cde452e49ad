"""Compiled loops of the ROF kernel: Chambolle-Pock sweeps over one image, several at a time.

A sweep goes down the rows; sweep t + 1 may follow one row behind sweep t. So the rows between the
first and the last of a group of sweeps stay in the cache, and memory is read once a group
(wavefront temporal blocking). The arithmetic does not depend on the grouping.

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
def _clip_row(x_bar, c, i, y, sigma, weight, r):
    """y = proj(y + sigma D x_bar) on row i of channel c, every difference in [-weight, weight].

    y is 0 across the far edges, and stays.
    """
    rows, m = x_bar.shape[1:]
    n = min(i + 1, rows - 1)
    for j in range(m - 1):
        w = weight[r, j]
        down = y[c, 0, i, j] + sigma * (x_bar[c, n, j] - x_bar[c, i, j])
        right = y[c, 1, i, j] + sigma * (x_bar[c, i, j + 1] - x_bar[c, i, j])
        y[c, 0, i, j] = min(max(down, -w), w)
        y[c, 1, i, j] = min(max(right, -w), w)
    w = weight[r, m - 1]
    down = y[c, 0, i, m - 1] + sigma * (x_bar[c, n, m - 1] - x_bar[c, i, m - 1])
    y[c, 0, i, m - 1] = min(max(down, -w), w)


@_fast
def _shrink_row(x_bar, i, y, sigma, weight, r, tiny):
    """The same for one channel, every pixel in the disc of radius weight."""
    rows, m = x_bar.shape[1:]
    n = min(i + 1, rows - 1)
    for j in range(m - 1):
        w = weight[r, j]
        down = y[0, 0, i, j] + sigma * (x_bar[0, n, j] - x_bar[0, i, j])
        right = y[0, 1, i, j] + sigma * (x_bar[0, i, j + 1] - x_bar[0, i, j])
        t = w / math.sqrt(max(down * down + right * right, w * w, tiny))
        y[0, 0, i, j] = down * t
        y[0, 1, i, j] = right * t
    w = weight[r, m - 1]
    down = y[0, 0, i, m - 1] + sigma * (x_bar[0, n, m - 1] - x_bar[0, i, m - 1])
    y[0, 0, i, m - 1] = min(max(down, -w), w)


@_fast
def _shrink_rows(x_bar, i, y, sigma, weight, r, tiny, t):
    """The same for all channels together, every pixel in the ball of radius weight."""
    rows, m = x_bar.shape[1:]
    n = min(i + 1, rows - 1)
    t[:] = x_bar.dtype.type(0)
    for c in range(len(x_bar)):
        for j in range(m):
            y[c, 0, i, j] += sigma * (x_bar[c, n, j] - x_bar[c, i, j])
        for j in range(m - 1):
            y[c, 1, i, j] += sigma * (x_bar[c, i, j + 1] - x_bar[c, i, j])
        for j in range(m):
            t[j] += y[c, 0, i, j] * y[c, 0, i, j] + y[c, 1, i, j] * y[c, 1, i, j]
    for j in range(m):
        w = weight[r, j]
        t[j] = w / math.sqrt(max(t[j], w * w, tiny))
    for c in range(len(x_bar)):
        for j in range(m):
            y[c, 0, i, j] *= t[j]
        for j in range(m):
            y[c, 1, i, j] *= t[j]


@_fast
def _pull(y, c, i, j):
    """-(D* y) at a pixel that is not in the first column."""
    up = y[c, 0, i - 1, j] if i else y.dtype.type(0)
    return y[c, 0, i, j] - up + y[c, 1, i, j] - y[c, 1, i, j - 1]


@_fast
def _first_pull(y, c, i):
    up = y[c, 0, i - 1, 0] if i else y.dtype.type(0)
    return y[c, 0, i, 0] - up + y[c, 1, i, 0]


@_fast
def _primal_row(target, c, i, y, x, x_bar, tau, mu, theta):
    """x = prox(x - tau D* y), x_bar = x + theta (x - old x) on a row."""
    one = x.dtype.type(1)
    shrink, pull = one / (one + tau * mu), tau * mu
    x_bar[c, i, 0] = (x[c, i, 0] + tau * _first_pull(y, c, i) + pull * target[c, i, 0]) * shrink
    for j in range(1, x.shape[2]):
        x_bar[c, i, j] = (x[c, i, j] + tau * _pull(y, c, i, j) + pull * target[c, i, j]) * shrink
    for j in range(x.shape[2]):
        new = x_bar[c, i, j]
        x_bar[c, i, j] = new + theta * (new - x[c, i, j])
        x[c, i, j] = new


@_fast
def sweeps(target, weight, mu, isotropic, x, x_bar, y, tau, sigma, theta, tiny):
    """Sweeps with the steps tau[k], sigma[k], theta[k], in place, on one image (C, H, W).

    weight: (H, W), or (1, W) for all rows. tiny: the least positive number of the dtype.
    """
    channels, rows, columns = x.shape
    t = np.empty(columns, x.dtype)
    for front in range(rows + len(tau) - 1):
        for k in range(max(0, front - rows + 1), min(len(tau), front + 1)):
            i = front - k
            r = i if len(weight) > 1 else 0
            if not isotropic:
                for c in range(channels):
                    _clip_row(x_bar, c, i, y, sigma[k], weight, r)
            elif channels == 1:
                _shrink_row(x_bar, i, y, sigma[k], weight, r, tiny)
            else:
                _shrink_rows(x_bar, i, y, sigma[k], weight, r, tiny, t)
            for c in range(channels):
                _primal_row(target, c, i, y, x, x_bar, tau[k], mu, theta[k])


@_fast
def energies(target, weight, mu, isotropic, x, y):
    """(P - D, P) at x and a feasible y, rows summed in float64.

    P - D = 1/(2 mu) |mu (x - target) + D* y|^2 + sum weight |Dx| - <Dx, y>: nothing cancels.
    """
    channels, rows, m = x.shape
    zero = x.dtype.type(0)
    size = np.empty(m, x.dtype)
    gap, primal = 0.0, 0.0
    for i in range(rows):
        n, r = min(i + 1, rows - 1), i if len(weight) > 1 else 0
        size[:] = zero
        inner, fit, slack, total = zero, zero, zero, zero
        for c in range(channels):
            for j in range(m - 1):
                down, right = x[c, n, j] - x[c, i, j], x[c, i, j + 1] - x[c, i, j]
                size[j] += down * down + right * right if isotropic else abs(down) + abs(right)
                inner += down * y[c, 0, i, j] + right * y[c, 1, i, j]
            down = x[c, n, m - 1] - x[c, i, m - 1]
            size[m - 1] += down * down if isotropic else abs(down)
            inner += down * y[c, 0, i, m - 1]
            d = x[c, i, 0] - target[c, i, 0]
            s = mu * d - _first_pull(y, c, i)
            fit += d * d
            slack += s * s
            for j in range(1, m):
                d = x[c, i, j] - target[c, i, j]
                s = mu * d - _pull(y, c, i, j)
                fit += d * d
                slack += s * s
        for j in range(m):
            total += weight[r, j] * (math.sqrt(size[j]) if isotropic else size[j])
        gap += slack / (2 * mu) + (total - inner)
        primal += mu * fit / 2 + total
    return gap, primal
