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
def _dual_row(x_bar, below, y1, y2, sigma, down, weight, tiny, isotropic, a, b, t):
    """y = proj(y + sigma D x_bar) on a row; `below` is the next row, down = 0 on the last one."""
    # one output a loop: with more, LLVM's alias checks stop the vectoriser
    m = len(x_bar)
    zero, square = a.dtype.type(0), max(weight * weight, tiny)
    step = sigma * down
    for j in range(m):
        a[j] = y1[j] + step * (below[j] - x_bar[j])
    for j in range(m - 1):
        b[j] = y2[j] + sigma * (x_bar[j + 1] - x_bar[j])
    b[m - 1] = zero
    if isotropic:
        for j in range(m):
            t[j] = weight / math.sqrt(max(a[j] * a[j] + b[j] * b[j], square))
        for j in range(m):
            y1[j] = a[j] * t[j]
        for j in range(m):
            y2[j] = b[j] * t[j]
    else:
        for j in range(m):
            y1[j] = min(max(a[j], -weight), weight)
        for j in range(m):
            y2[j] = min(max(b[j], -weight), weight)


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
    """Sweeps with the steps tau[k], sigma[k], theta[k], in place, on one image (H, W).

    tiny: the least positive number of the dtype.
    """
    rows, columns = x.shape
    a, b, t = np.empty(columns, x.dtype), np.empty(columns, x.dtype), np.empty(columns, x.dtype)
    nothing = np.zeros(columns, x.dtype)
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for front in range(rows + len(tau) - 1):
        for k in range(max(0, front - rows + 1), min(len(tau), front + 1)):
            i = front - k
            last = i == rows - 1
            _dual_row(x_bar[i], x_bar[i] if last else x_bar[i + 1], y[0, i], y[1, i], sigma[k],
                      zero if last else one, weight, tiny, isotropic, a, b, t)
            _primal_row(target[i], y[0, i], y[0, i - 1] if i else nothing, y[1, i], x[i], x_bar[i],
                        tau[k], mu, theta[k], a)


@_fast
def energies(target, weight, mu, isotropic, x, y):
    """(P - D, P) at x and a feasible y, summed in float64.

    P - D = 1/(2 mu) |mu (x - target) + D* y|^2 + sum weight |Dx| - <Dx, y>: nothing cancels.
    """
    rows, columns = x.shape
    gap, primal = 0.0, 0.0
    for i in range(rows):
        row_gap, row_primal = 0.0, 0.0
        for j in range(columns):
            d1 = x[i + 1, j] - x[i, j] if i + 1 < rows else x.dtype.type(0)
            d2 = x[i, j + 1] - x[i, j] if j + 1 < columns else x.dtype.type(0)
            pull = -y[0, i, j] - y[1, i, j]
            if i:
                pull += y[0, i - 1, j]
            if j:
                pull += y[1, i, j - 1]
            size = math.sqrt(d1 * d1 + d2 * d2) if isotropic else abs(d1) + abs(d2)
            r = x[i, j] - target[i, j]
            s = mu * r + pull
            row_gap += s * s / (2 * mu) + (weight * size - d1 * y[0, i, j] - d2 * y[1, i, j])
            row_primal += mu * r * r / 2 + weight * size
        gap += row_gap
        primal += row_primal
    return gap, primal
