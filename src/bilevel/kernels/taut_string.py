"""1-D total variation by its taut string: the solution and its segments, in linear time.

    u = argmin 1/2 |u - x|^2 + sum_k w_k |u_{k+1} - u_k|,    z_k = sum_{i <= k} (x_i - u_i)

is optimal if |z_k| <= w_k, z_k = -w_k where u jumps up behind k, z_k = w_k where it jumps down, and
z = 0 behind the last sample, which is an edge of weight 0.

x is (rows, n), w is (1 or rows, 1 or n - 1). A segment is known by its last sample `end` and the
`sign` of the jump behind it; row r has `count[r]` of them, from `first[r]` on. Sums are float64.
"""

from __future__ import annotations

import numpy as np
from numba import uintp

from .compiled import compiled

# an index by way of `uintp` is not negative, so that there is no test of its sign
_PATIENCE = 4  # samples read again for each one settled, before the pooled string takes over
_SHORT = 8  # segments of fewer samples are found in lanes
_HEAD = 64  # samples that tell whether they are short
_LANES, _LEAST, _PART = 16, 16, 248  # parts of a signal at once, and their samples, least and most
_STEPS = 992  # of a lane, at most
# where a lane's numbers are: f[_S + lane], i[_K + lane]
_Y, _B, _S, _N, _LOW, _HIGH, _BASE, _B_LOW, _B_HIGH, _V = range(0, 10 * _LANES, _LANES)
_K, _LOWEST, _HIGHEST, _CODE, _ENDS, _PLACE = range(0, 6 * _LANES, _LANES)


@compiled()
def _bound(w, k, last):
    """The weight of the edge behind sample k."""
    if k == last:
        return 0.0
    return w[uintp(k)] if len(w) > 1 else w[0]


@compiled(forceinline=True)
def _emit(u, ends, signs, m, at, end, v, sign):
    """Write down the segment at : end of value v; the next one begins at `end`."""
    ends[uintp(m)], signs[uintp(m)] = end - 1, sign
    if at + 8 <= len(u):  # eight at once, as most are short: what is too much is overwritten
        for i in range(8):
            u[uintp(at + i)] = v
        at += 8
    while at < end:
        u[uintp(at)] = v
        at += 1
    return end, m + 1


@compiled()
def _row(x, w, u, ends, signs, m):
    """The segments of one row, written from place m on; returns the next place.

    Nearly always linear: one segment after the other, or many at once where they are short. Where
    too many samples are read again, the pooled string does the rest.

    What is not finite makes NaN of all up to the nearest edges of weight 0; so does a weight that
    is negative or NaN.
    """
    at = block = again = 0
    z, bad, pause = 0.0, False, _HEAD
    while at < len(x):
        begin, before = at, m
        at, z, again, block, bad, m = _in_turn(
            x, w, at, min(at + pause, len(x)), z, again, u, block, bad, ends, signs, m
        )
        if not _patient(again, at):
            return _pooled(x, w, at, z, u, block, bad, ends, signs, m)
        if (m - before) * _SHORT > at - begin and again < 2 * at:
            at, z, again, block, bad, m = _in_lanes(
                x, w, at, z, again, u, block, bad, ends, signs, m
            )
        pause = _LANES * _PART
    return m


@compiled()
def _patient(again, at):
    """Whether reading `again` samples up to `at` is linear still."""
    return again <= _PATIENCE * at + 512


@compiled()
def _in_turn(x, w, at, stop, z, again, u, block, bad, ends, signs, m):
    """The segments from `at` to `stop`, one after the other, unless too many samples are read
    `again`; returns (at, z, again, block, bad, m) behind them.

    From a fixed point of the string, the values v that a segment up to k may have form an interval:
    |z_i| <= w_i for all its edges. It shrinks as k grows; where it is empty, the segment ends at
    the edge that bounded it, and its value is that bound. A form of [1] without a long chain of
    dependent operations; one loop for many segments, as a call would count references for each.
    [1] Condat. A direct algorithm for 1-D total variation denoising. IEEE SPL, 2013.
    """
    last = len(x) - 1
    while at < stop and _patient(again, at):
        base = float(x[uintp(at)])  # sums are of x - base, which is moved to the mean now and then
        b = _bound(w, at, last)
        low, high, s, n, share, move = z - max(b, 0.0), z + max(b, 0.0), z, 1, 1.0, 64
        k = lowest = highest = at  # the edges that gave the bounds
        up = down = False
        while b > 0.0:
            if n == move:
                moved = base + s * share
                shift, base = moved - base, moved
                s, low, high = s - n * shift, low - shift, high - shift
                move *= 2
            k += 1
            n += 1
            b = _bound(w, k, last)
            s += x[uintp(k)] - base
            share = 1.0 / n
            a, c = (s - b) * share, (s + b) * share
            up, down = a > high, c < low
            if up or down:
                break
            lowest = k if a >= low else lowest
            highest = k if c <= high else highest
            low, high = max(low, a), min(high, c)
        if up or down:  # by selection: which of the two cannot be predicted
            end, v, sign = (highest, high, 1) if up else (lowest, low, -1)
            wall = _bound(w, end, last)
            z = -wall if up else wall
        else:
            end, v, sign, z = k, s * share, 0, 0.0
        again += k - end
        bad = bad or not np.isfinite(v + base)
        at, m = _emit(u, ends, signs, m, at, end + 1, v + base, sign)
        if sign == 0:
            block, bad = _closed(u, block, at, b, bad)
    return at, z, again, block, bad, m


@compiled()
def _in_lanes(x, w, at, z, again, u, block, bad, ends, signs, m):
    """The segments from `at` on, as long as they are short and nearly up to the row's end, of 16
    parts at once; returns (at, z, again, block, bad, m) behind them.

    What follows a segment depends on nothing but its end and its sign. So a part may begin with any
    z: as soon as one of its segments is one of the part before, it is right from there on.
    """
    codes, values = np.empty(_LANES * _STEPS, np.int64), np.empty(_LANES * _STEPS)
    i = np.empty(6 * _LANES + 1, np.int64)
    i[_PLACE + _LANES] = _LANES  # behind the last part there is none
    while True:
        begin, before, place = at, m, 0
        part = min(_PART, (len(x) - at) // (_LANES + 1) - 4)  # the last one goes on a little
        if part < _LEAST or not _lockstep(x, w, at, z, part, codes, values, i):
            break
        for lane in range(_LANES):
            limit = i[_PLACE + lane + 1]
            stop, ahead, met = _agree(codes, place, i[_PLACE + lane], lane + 1, limit)
            for q in range(place, stop, _LANES):
                code, v = codes[uintp(q)], values[uintp(q)]
                bad |= not np.isfinite(v)
                at, m = _emit(u, ends, signs, m, at, (code >> 1) + 1, v, 2 * (code & 1) - 1)
            if m > before:
                z = -signs[m - 1] * _bound(w, at - 1, len(x) - 1)
            while ahead < limit and not met and _patient(again, at):
                at, z, again, block, bad, m = _in_turn(
                    x, w, at, at + 1, z, again, u, block, bad, ends, signs, m
                )
                code = 2 * ends[m - 1] + (signs[m - 1] > 0)
                while ahead < limit and codes[ahead] < code:
                    ahead += _LANES
                met = ahead < limit and codes[ahead] == code
            if not met:
                break
            place = ahead + _LANES
        if (m - before) * _SHORT <= at - begin or 2 * (at - begin) < _LANES * part:
            break
    return at, z, again, block, bad, m


@compiled()
def _agree(codes, place, stop, ahead, limit):
    """(p, q, met): the first segment that a part, from `place` to `stop`, has in common with the
    next one, from `ahead` to `limit`, is the last before p, and at q; (stop, ..., False): none."""
    p = stop
    while p > place and ahead < limit and codes[p - _LANES] >= codes[ahead]:
        p -= _LANES
    while p < stop and ahead < limit:
        if codes[p] == codes[ahead]:
            return p + _LANES, ahead, True
        if codes[p] < codes[ahead]:
            p += _LANES
        else:
            ahead += _LANES
    return stop, ahead, False


@compiled()
def _lockstep(x, w, at, z, part, codes, values, i):
    """The segments of each of the parts, 2 end + (1 for a jump up) and value, lane j's at j,
    j + _LANES, ... before i[_PLACE + j]; whether all weights are positive. Parts but the first
    begin with z = 0."""
    edges, last = len(w) > 1, len(x) - 1
    for k in range(at, min(at + _LANES * part + _STEPS, last) if edges else at + 1):
        if not w[k if edges else 0] > 0.0:  # for `_in_turn`
            return False
    f = np.zeros(10 * _LANES)
    f[_S] = z
    for j in range(_LANES):
        f[_N + j], f[_LOW + j], f[_HIGH + j], f[_B + j] = 1.0, -np.inf, np.inf, w[0]
        i[_K + j], i[_PLACE + j], i[_ENDS + j] = at + j * part, j, 0
    for _ in range(_STEPS // 32):
        behind, ahead = False, 0
        for j in range(_LANES):
            behind |= i[_K + j] < at + (j + 1) * part
            ahead = max(ahead, i[_K + j])
        if not behind or ahead + 32 > last:
            break
        for _ in range(32):
            for j in range(_LANES):
                k = uintp(i[_K + j])
                f[_Y + j] = x[k]
                if edges:
                    f[_B + j] = w[k]
            _advance(f, i)
            for j in range(_LANES):  # overwritten, unless a segment ended
                place = uintp(i[_PLACE + j])
                codes[place], values[place] = i[_CODE + j], f[_V + j]
    for j in range(_LANES):
        i[_PLACE + j] += i[_ENDS + j]
    return True


@compiled()
def _advance(f, i):
    """One sample more for each lane: `_in_turn` without a branch, which makes it vector code."""
    for j in range(_LANES):
        y, b, n, base = f[_Y + j], f[_B + j], f[_N + j], f[_BASE + j]
        low, high, k = f[_LOW + j], f[_HIGH + j], i[_K + j]
        lowest, highest = i[_LOWEST + j], i[_HIGHEST + j]
        b_low, b_high = f[_B_LOW + j], f[_B_HIGH + j]
        base = y if n == 1.0 else base
        s = f[_S + j] + (y - base)
        share = 1.0 / n
        a, c = (s - b) * share, (s + b) * share
        up, over = a > high, (a > high) | (c < low)
        code, v, z = (highest, high, -b_high) if up else (lowest, low, b_low)
        i[_PLACE + j] += i[_ENDS + j]
        i[_ENDS + j] = _LANES if over else 0
        i[_CODE + j], f[_V + j] = code, v + base
        i[_K + j] = (code >> 1) + 1 if over else k + 1
        i[_LOWEST + j] = 2 * k if a >= low else lowest
        i[_HIGHEST + j] = 2 * k + 1 if c <= high else highest
        f[_B_LOW + j] = b if a >= low else b_low
        f[_B_HIGH + j] = b if c <= high else b_high
        low, high = a if a >= low else low, c if c <= high else high
        f[_LOW + j], f[_HIGH + j] = -np.inf if over else low, np.inf if over else high
        f[_BASE + j], f[_S + j] = base, z if over else s
        f[_N + j] = 1.0 if over else n + 1.0


@compiled()
def _closed(u, block, at, b, bad):
    """At an edge of weight b = 0 a block ends: NaN if anything in it was bad. (block, bad)."""
    bad = bad or b != 0.0
    if bad:
        for i in range(block, at):
            u[i] = np.nan
    return (block, bad) if b != 0.0 else (at, False)


@compiled()
def _pooled(x, w, at, z, u, block, bad, ends, signs, m):
    """The rest of a row, from sample `at` on, where the dual is z, in linear time on every signal.

    The string runs between the walls S_k + w_k and S_k - w_k, S the running sums of x. From the
    point where it is fixed, the wall above has a convex minorant, the wall below a concave
    majorant, each a list of slopes, as sums over lengths; where they cross, the first piece of one
    of them is a segment. Its value is computed from its own samples: no error is handed on.
    [1] Davies, Kovac. Local extremes, runs, strings and multiresolution. Ann. Statist., 2001.
    """
    last, size, base = len(x) - 1, len(x) - at, float(x[uintp(at)]) if np.isfinite(x[at]) else 0.0
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
                at, m = _emit(u, ends, signs, m, at, end, v, -1)
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
                at, m = _emit(u, ends, signs, m, at, end, v, 1)
                z = after
                ua += 1
        if b == 0.0:  # the walls meet
            at, m = _emit(u, ends, signs, m, at, i + 1, _level(x, at, i + 1, z), 0)
            block, bad = _closed(u, block, at, 0.0 if sound else np.nan, bad)
            ua, ub, la, lb = 0, -1, 0, -1
            z = up = down = 0.0
    return m


@compiled()
def _level(x, at, end, change):
    """The value of a segment along which the dual changes by -change."""
    base, s = float(x[uintp(at)]), change
    for i in range(at, end):
        s += x[uintp(i)] - base
    return base + s / (end - at)


@compiled()
def _pool(sums, lengths, head, tail, s, turn):
    """Append a slope to a list that increases (turn 1) or decreases (-1); returns its new tail."""
    n = 1.0
    while tail >= head:
        i = uintp(tail)
        if not turn * (sums[i] * n - s * lengths[i]) >= 0.0:
            break
        n += lengths[i]
        s += sums[i]
        tail -= 1
    i = uintp(tail + 1)
    sums[i], lengths[i] = s, n
    return tail + 1


@compiled()
def _range(x):
    least, most = np.inf, -np.inf
    for y in x:
        if np.isfinite(y):
            least, most = min(least, y), max(most, y)
    return max(most - least, 0.0)


@compiled()
def solve(begin, stop, x, w, u, ends, signs, first, count):
    """Rows begin to stop. Segments follow each other without gaps, from begin n on."""
    place = begin * x.shape[1]
    for r in range(begin, stop):
        start = place
        place = _row(x[r], w[r] if len(w) > 1 else w[0], u[r], ends, signs, start)
        first[r], count[r] = start, place - start
        for j in range(start, place - 1):
            if signs[j] == 0:  # an edge of weight 0: the derivative for a growing weight
                signs[j] = np.sign(u[r, ends[j] + 1] - u[r, ends[j]])
