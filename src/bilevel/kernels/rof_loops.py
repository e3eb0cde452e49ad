"""Compiled loops of the ROF kernel: Chambolle-Pock sweeps over one image, several at a time.

A sweep goes down the rows; sweep t + 1 may follow one row behind sweep t. So the rows between the
first and the last of a group of sweeps stay in the cache, and memory is read once a group
(wavefront temporal blocking). The arithmetic does not depend on the grouping.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "nsz", "arcp", "afn", "reassoc"})  # NaN and inf stay


# fmt: off


@_fast
def _dual_row(x_bar, i, y, sigma, weight, tiny, isotropic, t):
    """y = proj(y + sigma D x_bar) on row i of the channels; y is 0 across the far edges, and stays.

    weight: one for each pixel of the row. Isotropic: one 2-norm of a pixel's differences, over all
    channels.
    """
    # one output a loop: with more, LLVM's alias checks stop the vectoriser
    rows, m = x_bar.shape[1:]
    for c in range(len(x_bar)):
        row, below, y1, y2 = x_bar[c, i], x_bar[c, min(i + 1, rows - 1)], y[c, 0, i], y[c, 1, i]
        for j in range(m):
            y1[j] += sigma * (below[j] - row[j])
        for j in range(m - 1):
            y2[j] += sigma * (row[j + 1] - row[j])
        if not isotropic:
            for j in range(m):
                y1[j] = min(max(y1[j], -weight[j]), weight[j])
            for j in range(m):
                y2[j] = min(max(y2[j], -weight[j]), weight[j])
        elif c == 0:
            for j in range(m):
                t[j] = y1[j] * y1[j] + y2[j] * y2[j]
        else:
            for j in range(m):
                t[j] += y1[j] * y1[j] + y2[j] * y2[j]
    if isotropic:
        for j in range(m):
            t[j] = weight[j] / math.sqrt(max(t[j], weight[j] * weight[j], tiny))
        for c in range(len(x_bar)):
            y1, y2 = y[c, 0, i], y[c, 1, i]
            for j in range(m):
                y1[j] *= t[j]
            for j in range(m):
                y2[j] *= t[j]


@_fast
def _primal_row(target, y1, above, y2, x, x_bar, tau, mu, theta, a):
    """x = prox(x - tau D* y), x_bar = x + theta (x - old x) on a row; `above`: y1 one row up."""
    m = len(x)
    shrink = x.dtype.type(1) / (x.dtype.type(1) + tau * mu)
    a[0] = y1[0] - above[0] + y2[0]
    for j in range(1, m):
        a[j] = y1[j] - above[j] + y2[j] - y2[j - 1]
    for j in range(m):
        a[j] = (x[j] + tau * (a[j] + mu * target[j])) * shrink
    for j in range(m):
        x_bar[j] = a[j] + theta * (a[j] - x[j])
    for j in range(m):
        x[j] = a[j]


@_fast
def sweeps(target, weight, mu, isotropic, x, x_bar, y, tau, sigma, theta, tiny):
    """Sweeps with the steps tau[k], sigma[k], theta[k], in place, on one image (C, H, W).

    weight: (H, W), or (1, W) for all rows. tiny: the least positive number of the dtype.
    """
    rows, columns = x.shape[1:]
    a, nothing = np.empty(columns, x.dtype), np.zeros(columns, x.dtype)
    for front in range(rows + len(tau) - 1):
        for k in range(max(0, front - rows + 1), min(len(tau), front + 1)):
            i = front - k
            w = weight[i if len(weight) > 1 else 0]
            _dual_row(x_bar, i, y, sigma[k], w, tiny, isotropic, a)
            for c in range(len(x)):
                above = y[c, 0, i - 1] if i else nothing
                _primal_row(target[c, i], y[c, 0, i], above, y[c, 1, i], x[c, i], x_bar[c, i],
                            tau[k], mu, theta[k], a)


@_fast
def energies(target, weight, mu, isotropic, x, y):
    """(P - D, P) at x and a feasible y, summed in float64.

    P - D = 1/(2 mu) |mu (x - target) + D* y|^2 + sum weight |Dx| - <Dx, y>: nothing cancels.
    """
    rows, m = x.shape[1:]
    zero, nothing = x.dtype.type(0), np.zeros(m, x.dtype)
    size, inner, pull = np.empty(m, x.dtype), np.empty(m, x.dtype), np.empty(m, x.dtype)
    gap, primal = 0.0, 0.0
    for i in range(rows):
        size[:], inner[:] = zero, zero
        fit, slack, total = 0.0, 0.0, 0.0
        for c in range(len(x)):
            row, below, data = x[c, i], x[c, min(i + 1, rows - 1)], target[c, i]
            y1, y2, above = y[c, 0, i], y[c, 1, i], y[c, 0, i - 1] if i else nothing
            for j in range(m):
                d = below[j] - row[j]
                size[j] += d * d if isotropic else abs(d)
            for j in range(m - 1):
                d = row[j + 1] - row[j]
                size[j] += d * d if isotropic else abs(d)
            for j in range(m):
                inner[j] += (below[j] - row[j]) * y1[j]
            for j in range(m - 1):
                inner[j] += (row[j + 1] - row[j]) * y2[j]
            pull[0] = above[0] - y1[0] - y2[0]
            for j in range(1, m):
                pull[j] = above[j] - y1[j] + y2[j - 1] - y2[j]
            for j in range(m):
                r = row[j] - data[j]
                s = mu * r + pull[j]
                fit += mu * r * r / 2
                slack += s * s / (2 * mu)
        w = weight[i if len(weight) > 1 else 0]
        for j in range(m):
            size[j] = w[j] * (math.sqrt(size[j]) if isotropic else size[j])
        for j in range(m):
            slack += size[j] - inner[j]
            total += size[j]
        gap += slack
        primal += fit + total
    return gap, primal
