"""1-D total variation by its taut string: the solution, its segments, and the two products with its
derivative, each in linear time.

    u = argmin 1/2 |u - x|^2 + sum_k w_k |u_{k+1} - u_k|,    z_k = sum_{i <= k} (x_i - u_i)

is optimal if |z_k| <= w_k, z_k = -w_k where u jumps up behind k, z_k = w_k where it jumps down, and
z = 0 behind the last sample, which is an edge of weight 0.

x is (rows, n), w is (1 or rows, 1 or n - 1). A segment is known by its last sample `end` and the
`sign` of the jump behind it; row r has `count[r]` of them, from `first[r]` on. Sums are float64.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_PATIENCE = 4  # samples read again for each one settled, before the pooled string takes over
_ANY_ORDER = {"reassoc", "contract"}  # of a sum, so that it can be made in parallel


@compiled()
def _bound(w, k, last):
    """The weight of the edge behind sample k."""
    if k == last:
        return 0.0
    return w[k] if len(w) > 1 else w[0]


@compiled()
def _emit(u, ends, signs, m, keep, at, end, v, sign):
    """Write down the segment at : end of value v; the next one begins at `end`."""
    if keep:
        ends[m], signs[m] = end - 1, sign
    if at + 4 <= len(u):  # four at once, as most are short: what is too much is overwritten
        u[at] = u[at + 1] = u[at + 2] = u[at + 3] = v
        at += 4
    for i in range(at, end):
        u[i] = v
    return end, m + 1


@compiled()
def _row(x, w, u, ends, signs, m, keep):
    """The segments of one row, written from place m on; returns the next place.

    From a fixed point of the string, the values v that a segment up to k may have form an interval:
    |z_i| <= w_i for all its edges. It shrinks as k grows; where it is empty, the segment ends at
    the edge that bounded it, and its value is that bound. Nearly always linear, as Condat's method,
    of which this is a form without a long chain of dependent operations; where too many samples are
    read again, the pooled string does the rest.

    What is not finite makes NaN of all up to the nearest edges of weight 0; so does a weight that
    is negative or NaN.
    [1] Condat. A direct algorithm for 1-D total variation denoising. IEEE SPL, 2013.
    """
    last = len(x) - 1
    at = block = again = 0
    z, bad = 0.0, False
    while at <= last:
        base = float(x[at])  # sums are of x - base, which is moved to the mean now and then
        b = _bound(w, at, last)
        low, high, s, n, move = z - max(b, 0.0), z + max(b, 0.0), z, 1, 64
        k = lowest = highest = at  # the edges that gave the bounds
        a = c = z
        while b > 0.0:
            k += 1
            n += 1
            b = _bound(w, k, last)
            s += x[k] - base
            share = 1.0 / n
            a, c = (s - b) * share, (s + b) * share
            if a > high or c < low or b <= 0.0:
                break
            lowest = k if a >= low else lowest
            highest = k if c <= high else highest
            low, high = max(low, a), min(high, c)
            if n == move:
                moved = base + s * share
                shift, base = moved - base, moved
                s, low, high = s - n * shift, low - shift, high - shift
                move *= 2
        up = a > high
        if up or c < low:  # by selection: which of the two cannot be predicted
            end, v, sign = (highest, high, 1) if up else (lowest, low, -1)
            wall = _bound(w, end, last)
            z = -wall if up else wall
        else:
            end, v, sign, z = k, a, 0, 0.0
        v += base
        again += k - end
        bad = bad or not np.isfinite(v)
        at, m = _emit(u, ends, signs, m, keep, at, end + 1, v, sign)
        if sign == 0:
            block, bad = _closed(u, block, at, b, bad)
        elif again > _PATIENCE * at + 512:
            return _pooled(x, w, at, z, u, block, bad, ends, signs, m, keep)
    return m


@compiled()
def _closed(u, block, at, b, bad):
    """At an edge of weight b = 0 a block ends: NaN if anything in it was bad. (block, bad)."""
    bad = bad or b != 0.0
    if bad:
        for i in range(block, at):
            u[i] = np.nan
    return (block, bad) if b != 0.0 else (at, False)


@compiled()
def _pooled(x, w, at, z, u, block, bad, ends, signs, m, keep):
    """The rest of a row, from sample `at` on, where the dual is z, in linear time on every signal.

    The string runs between the walls S_k + w_k and S_k - w_k, S the running sums of x. From the
    point where it is fixed, the wall above has a convex minorant, the wall below a concave
    majorant, each a list of slopes, as sums over lengths; where they cross, the first piece of one
    of them is a segment. Its value is computed from its own samples: no error is handed on.
    [1] Davies, Kovac. Local extremes, runs, strings and multiresolution. Ann. Statist., 2001.
    """
    last, size, base = len(x) - 1, len(x) - at, float(x[at]) if np.isfinite(x[at]) else 0.0
    above, above_n = np.empty(size), np.empty(size)  # sums of x - base, and lengths
    below, below_n = np.empty(size), np.empty(size)
    ua, ub, la, lb = 0, -1, 0, -1  # the lists are above[ua : ub + 1] and below[la : lb + 1]
    beyond = abs(z) + size * _range(x)  # no dual is larger
    up, down = -z, z  # the walls at the edge before, from the fixed point
    for i in range(at, len(x)):
        y, b = x[i] - base, min(_bound(w, i, last), beyond)
        bad = bad or not np.isfinite(y)
        y = y if np.isfinite(y) else 0.0
        sound = b >= 0.0
        b = b if sound else 0.0
        ub = _pool(above, above_n, ua, ub, y + (b - up), 1.0)
        up = b
        if ub == ua:  # the upper list is one slope up to i, the lower one goes up to i - 1
            while la <= lb and below[la] * above_n[ua] > above[ua] * below_n[la]:
                above[ua] -= below[la]
                above_n[ua] -= below_n[la]
                end = at + int(below_n[la])
                after = _bound(w, end - 1, last)
                v = _level(x, at, end, z - after)
                at, m = _emit(u, ends, signs, m, keep, at, end, v, -1)
                z = after
                la += 1
        if la > lb:  # the lower list begins again
            la, lb = 0, -1
            if ub == ua:
                above[0], above_n[0] = above[ua], above_n[ua]
                ua = ub = 0
        lb = _pool(below, below_n, la, lb, y - (b - down), -1.0)
        down = b
        if lb == la:
            while above_n[ua] < below_n[la] and above[ua] * below_n[la] < below[la] * above_n[ua]:
                below[la] -= above[ua]
                below_n[la] -= above_n[ua]
                end = at + int(above_n[ua])
                after = -_bound(w, end - 1, last)
                v = _level(x, at, end, z - after)
                at, m = _emit(u, ends, signs, m, keep, at, end, v, 1)
                z = after
                ua += 1
        if b == 0.0:  # the walls meet
            at, m = _emit(u, ends, signs, m, keep, at, i + 1, _level(x, at, i + 1, z), 0)
            block, bad = _closed(u, block, at, 0.0 if sound else np.nan, bad)
            ua, ub, la, lb = 0, -1, 0, -1
            z = up = down = 0.0
    return m


@compiled()
def _level(x, at, end, change):
    """The value of a segment along which the dual changes by -change."""
    base, s = float(x[at]), change
    for i in range(at, end):
        s += x[i] - base
    return base + s / (end - at)


@compiled()
def _pool(sums, lengths, head, tail, s, turn):
    """Append a slope to a list that increases (turn 1) or decreases (-1); returns its new tail."""
    n = 1.0
    while tail >= head and turn * (sums[tail] * n - s * lengths[tail]) >= 0.0:
        n += lengths[tail]
        s += sums[tail]
        tail -= 1
    sums[tail + 1], lengths[tail + 1] = s, n
    return tail + 1


@compiled()
def _range(x):
    least, most = np.inf, -np.inf
    for y in x:
        if np.isfinite(y):
            least, most = min(least, y), max(most, y)
    return max(most - least, 0.0)


@compiled()
def solve(begin, stop, x, w, u, ends, signs, first, count, keep):
    """Rows begin to stop. Segments follow each other without gaps, from begin n on."""
    place = begin * x.shape[1]
    for r in range(begin, stop):
        start = place
        place = _row(x[r], w[r] if len(w) > 1 else w[0], u[r], ends, signs, start, keep)
        first[r], count[r] = start, place - start
        if keep:
            for j in range(start, place - 1):
                if signs[j] == 0:  # an edge of weight 0: the derivative for a growing weight
                    signs[j] = np.sign(u[r, ends[j] + 1] - u[r, ends[j]])


@compiled(fastmath=_ANY_ORDER)
def push(begin, stop, ends, signs, first, count, dx, dw, du):
    """du = mean of dx over each segment S, + (sign dw behind it - sign dw before it) / |S|."""
    edges = dw.shape[1] > 1
    for r in range(begin, stop):
        at, left = 0, 0.0
        source, out, weight = dx[r], du[r], dw[r] if len(dw) > 1 else dw[0]
        for j in range(first[r], first[r] + count[r]):
            end, right, s = ends[j] + 1, 0.0, 0.0
            if signs[j] != 0:
                right = signs[j] * weight[end - 1 if edges else 0]
            for y in source[at:end]:
                s += y
            out[at:end] = (s + right - left) / (end - at)
            at, left = end, right


@compiled(fastmath=_ANY_ORDER)
def pull(begin, stop, ends, signs, first, count, g, gx, gw):
    """gx = mean of g over each segment; gw of an edge = sign (mean before it - mean behind it)."""
    edges = gw.shape[1] > 1
    for r in range(begin, stop):
        at, before, sign, total = 0, 0.0, 0, 0.0
        source, out = g[r], gx[r]
        if edges:
            gw[r, :] = 0.0
        for j in range(first[r], first[r] + count[r]):
            end, s = ends[j] + 1, 0.0
            for y in source[at:end]:
                s += y
            v = s / (end - at)
            out[at:end] = v
            jump = sign * (before - v)
            if edges and at > 0:
                gw[r, at - 1] = jump
            total += jump
            at, before, sign = end, v, signs[j]
        if not edges and gw.shape[1]:
            gw[r, 0] = total
