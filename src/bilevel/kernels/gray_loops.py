"""Compiled loops of the ROF kernel on a gray image: those of rof_loops, over two rows at once.

Two rows are one loop over what lies in memory one after the other: what it costs to begin a loop is
a third of the time of a row of 512. It reads across the far edge, and what it makes of the last
column is put right afterwards. More rows would leave the nearest cache between the halves of a
sweep. No tuple holds an array: it would be counted, for a tenth of the time of a row.
"""

from __future__ import annotations

import math

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "nsz", "arcp", "afn", "reassoc"})  # NaN and inf stay
_STRIP = 2  # rows


@_fast
def _in_a_row(numbers):
    """One a pixel, or a column, as one a pixel of the image, or of a strip."""
    if len(numbers) > 1:
        return numbers.ravel()
    strip = np.empty((_STRIP, numbers.shape[1]), numbers.dtype)
    strip[:] = numbers
    return strip.ravel()


@_fast
def _planes(y):
    """The differences down and those to the right; in memory these follow those."""
    y = y.ravel()
    return y[: len(y) // 2], y[len(y) // 2 :]


@_fast
def _shrink(x_bar, down, right, begin, end, below, sigma, weight, shift, tiny):
    """y = proj(y + sigma D x_bar) on the pixels from begin to end, each in the disc of radius
    weight."""
    one = x_bar.dtype.type(1)
    for q in range(begin, end):
        here, w = x_bar[np.uint64(q)], weight[np.uint64(q - shift)]  # unsigned: no wrap to the end
        a = down[np.uint64(q)] + sigma * (x_bar[np.uint64(q + below)] - here)
        b = right[np.uint64(q)] + sigma * (x_bar[np.uint64(q + 1)] - here)
        t = min(w / math.sqrt(max(a * a + b * b, tiny)), one)
        down[np.uint64(q)] = a * t
        right[np.uint64(q)] = b * t


@_fast
def _clip(x_bar, down, right, begin, end, below, sigma, weight, shift):
    """y = clip(y + sigma D x_bar) there, every difference in [-weight, weight]."""
    for q in range(begin, end):
        here, w = x_bar[np.uint64(q)], weight[np.uint64(q - shift)]
        a = down[np.uint64(q)] + sigma * (x_bar[np.uint64(q + below)] - here)
        b = right[np.uint64(q)] + sigma * (x_bar[np.uint64(q + 1)] - here)
        down[np.uint64(q)] = min(max(a, -w), w)
        right[np.uint64(q)] = min(max(b, -w), w)


@_fast
def _dual(x_bar, rows, m, first, last, down, right, sigma, weight, isotropic, tiny, edge):
    """y = proj(y + sigma D x_bar) on the rows from first to last, of m columns."""
    whole = len(weight) == rows * m
    for i in range(first, last):  # the last column: a difference down, none to the right
        q = (i + 1) * m - 1
        w = weight[np.uint64(q if whole else m - 1)]
        step = x_bar[np.uint64(q + m if i + 1 < rows else q)] - x_bar[np.uint64(q)]
        edge[i - first] = min(max(down[np.uint64(q)] + sigma * step, -w), w)
    inner = max(first, min(last, rows - 1))
    for i, end, below in ((first, inner, m), (inner, last, 0)):
        begin, shift = i * m, 0 if whole else i * m
        after = end * m - (0 if below else 1)  # nothing stands right of the last pixel of all
        if i < end and isotropic:
            _shrink(x_bar, down, right, begin, after, below, sigma, weight, shift, tiny)
        elif i < end:
            _clip(x_bar, down, right, begin, after, below, sigma, weight, shift)
    for i in range(first, last):
        q = (i + 1) * m - 1
        down[np.uint64(q)], right[np.uint64(q)] = edge[i - first], x_bar.dtype.type(0)


@_fast
def _pull(down, right, q, above):
    """-(D* y) at a pixel. Left of a row is the end of the row above, and left of the first row the
    last of the differences down: y is 0 at both."""
    pull = down[np.uint64(q)] - down[np.uint64(q - above)]
    return pull + (right[np.uint64(q)] - right[np.uint64(q - 1)])


@_fast
def _descend(target, mu, shift, begin, end, above, down, right, x, x_bar, tau, theta):
    """x = prox(x - tau D* y), x_bar = x + theta (x - old x) on the pixels from begin to end."""
    one = x.dtype.type(1)
    for q in range(begin, end):
        old, s = x[np.uint64(q)], tau * mu[np.uint64(q - shift)]
        new = old + tau * _pull(down, right, q, above) + s * target[np.uint64(q)]
        new *= one / (one + s)
        x_bar[np.uint64(q)] = new + theta * (new - old)
        x[np.uint64(q)] = new


@_fast
def _descend_evenly(target, mu, begin, end, above, down, right, x, x_bar, tau, theta):
    """The same, with one mu for all: no division a pixel."""
    a = x.dtype.type(1) / (x.dtype.type(1) + tau * mu)
    b, c = a * tau, a * tau * mu
    for q in range(begin, end):
        old = x[np.uint64(q)]
        new = a * old + b * _pull(down, right, q, above) + c * target[np.uint64(q)]
        x_bar[np.uint64(q)] = new + theta * (new - old)
        x[np.uint64(q)] = new


@_fast
def _primal(target, mu, even, rows, m, first, last, down, right, x, x_bar, tau, theta):
    """_descend on the rows from first to last; the last row of y, 0, serves above the first."""
    inner, whole = min(max(first, 1), last), len(mu) == rows * m
    for i, end, above in ((first, inner, m - rows * m), (inner, last, m)):
        begin, after, shift = i * m, end * m, 0 if whole else i * m
        if i < end and even:
            u = mu[0]
            _descend_evenly(target, u, begin, after, above, down, right, x, x_bar, tau, theta)
        elif i < end:
            _descend(target, mu, shift, begin, after, above, down, right, x, x_bar, tau, theta)


@_fast
def _even(numbers):
    for q in range(len(numbers)):
        if numbers[q] != numbers[0]:
            return False
    return True


@_fast
def sweeps(target, weight, mu, isotropic, height, begin, end, x, x_bar, y, tau, sigma, theta, tiny):
    """As rof_loops.sweeps."""
    rows, m = x.shape[1:]
    (down, right), edge = _planes(y), np.empty(_STRIP, x.dtype)
    weight, mu = _in_a_row(weight), _in_a_row(mu)
    target, x, x_bar, even = target.ravel(), x.ravel(), x_bar.ravel(), _even(mu)
    fronts = (len(tau) - 1) * (1 + end[1]) + max(end[1], 0)
    for front in range(begin[0], end[0] + fronts, _STRIP):
        for k in range(len(tau)):
            i, after = front - k, front - k + _STRIP
            low, high = begin[0] + begin[1] * k, end[0] + end[1] * k
            first, last = max(i, low), min(after, high)
            if first < last:
                s = sigma[k]
                _dual(x_bar, rows, m, first, last, down, right, s, weight, isotropic, tiny, edge)
            first, last = max(i, low + max(begin[1], 0)), min(after, high + max(end[1], 0))
            if first < last:
                a, b = tau[k], theta[k]
                _primal(target, mu, even, rows, m, first, last, down, right, x, x_bar, a, b)


@_fast
def energies(target, weight, mu, isotropic, height, begin, end, x, y, found):
    """As rof_loops.energies, in one pass over a row."""
    rows, m = x.shape[1:]
    (down, right), half = _planes(y), x.dtype.type(0.5)
    maps = len(weight) > 1, len(mu) > 1
    weight, mu, target, x = weight.ravel(), mu.ravel(), target.ravel(), x.ravel()
    for i in range(begin, end):
        o, edge = i * m, (i + 1) * m - 1
        below, above = m if i + 1 < rows else 0, m if i else m - rows * m
        for first, last, after in ((o, edge, 1), (edge, edge + 1, 0)):
            primal, gap = x.dtype.type(0), x.dtype.type(0)
            for q in range(first, last):
                here, u = x[np.uint64(q)], mu[np.uint64(q - (0 if maps[1] else o))]
                a, b = x[np.uint64(q + below)] - here, x[np.uint64(q + after)] - here
                size = math.sqrt(a * a + b * b) if isotropic else abs(a) + abs(b)
                tension = weight[np.uint64(q - (0 if maps[0] else o))] * size
                d = here - target[np.uint64(q)]
                s = u * d - _pull(down, right, q, above)
                primal += tension + half * (u * d * d)
                gap += tension - (a * down[np.uint64(q)] + b * right[np.uint64(q)])
                gap += half * (s * s / u)
            found[i, 0] = gap + (found[i, 0] if first > o else 0)
            found[i, 1] = primal + (found[i, 1] if first > o else 0)


@_fast
def ascend(x_bar, y, sigma, weight, isotropic, height, tiny, out):
    """As rof_loops.ascend."""
    rows, m = x_bar.shape[1:]
    weight, edge, x_bar = _in_a_row(weight), np.empty(_STRIP, y.dtype), x_bar.ravel()
    (a, b), (down, right) = _planes(y), _planes(out)
    for i in range(0, rows, _STRIP):
        last = min(i + _STRIP, rows)
        for q in range(i * m, last * m):
            down[q] = a[q]
            right[q] = b[q]
        _dual(x_bar, rows, m, i, last, down, right, sigma, weight, isotropic, tiny, edge)
