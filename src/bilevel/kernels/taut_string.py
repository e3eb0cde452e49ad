"""1-D total variation by its taut string: the solution and its segments, in linear time.

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
_SHORT = 5  # segments of fewer samples are found in lanes
_LANES, _PART = 16, 248  # parts of a signal at once, and their samples
_STEPS = 992  # of a lane, at most; neither is a multiple of a cache's 4096 bytes
# where a lane's numbers are: f[_S + lane], i[_K + lane]
_Y, _B, _S, _N, _LOW, _HIGH, _BASE, _MOVE, _B_LOW, _B_HIGH, _V = range(0, 11 * _LANES, _LANES)
_K, _LOWEST, _HIGHEST, _CODE, _ENDS, _PLACE, _SOUND = range(0, 7 * _LANES, _LANES)


@compiled()
def _bound(w, k, last):
    """The weight of the edge behind sample k."""
    if k == last:
        return 0.0
    return w[k] if len(w) > 1 else w[0]


@compiled(forceinline=True)
def _emit(u, ends, signs, m, at, end, v, sign):
    """Write down the segment at : end of value v; the next one begins at `end`."""
    ends[m], signs[m] = end - 1, sign
    if at + 4 <= len(u):  # four at once, as most are short: what is too much is overwritten
        u[at] = u[at + 1] = u[at + 2] = u[at + 3] = v
        at += 4
    for i in range(at, end):
        u[i] = v
    return end, m + 1


@compiled()
def _row(x, w, u, ends, signs, m):
    """The segments of one row, written from place m on; returns the next place.

    Nearly always linear: one segment after the other, or many at once where they are short. Where
    too many samples are read again, the pooled string does the rest.

    What is not finite makes NaN of all up to the nearest edges of weight 0; so does a weight that
    is negative or NaN.
    """
    last = len(x) - 1
    at = block = again = 0
    z, bad, pause = 0.0, False, 2 * _PART
    while at <= last:
        begin, before = at, m
        while at <= last and at < begin + pause:
            end, v, sign, z, k, b = _segment(x, w, at, z)
            again += k - end
            bad = bad or not np.isfinite(v)
            at, m = _emit(u, ends, signs, m, at, end + 1, v, sign)
            if sign == 0:
                block, bad = _closed(u, block, at, b, bad)
            elif again > _PATIENCE * at + 512:
                return _pooled(x, w, at, z, u, block, bad, ends, signs, m)
        if (m - before) * _SHORT > at - begin:
            at, z, m, bad = _in_lanes(x, w, at, z, u, bad, ends, signs, m)
        pause = _LANES * _PART
    return m


@compiled(forceinline=True)
def _segment(x, w, at, z):
    """The segment from `at` on: its last sample, value, the sign of the jump behind it, z there;
    also the last sample read, and the weight behind that.

    From a fixed point of the string, the values v that a segment up to k may have form an interval:
    |z_i| <= w_i for all its edges. It shrinks as k grows; where it is empty, the segment ends at
    the edge that bounded it, and its value is that bound. A form of [1] without a long chain of
    dependent operations.
    [1] Condat. A direct algorithm for 1-D total variation denoising. IEEE SPL, 2013.
    """
    last = len(x) - 1
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
    return end, v + base, sign, z, k, b


@compiled()
def _in_lanes(x, w, at, z, u, bad, ends, signs, m):
    """The segments from `at` on, as long as they are short and far from the row's end, of 16 parts
    of the row at once; returns (at, z, m, bad) behind them.

    What follows a segment depends on nothing but its end and its sign. So a part may begin with any
    z: as soon as one of its segments is one of the part before, it is right from there on.
    """
    codes, values = np.empty(_LANES * _STEPS, np.int64), np.empty(_LANES * _STEPS)
    i = np.empty(7 * _LANES, np.int64)
    last = len(x) - 1
    while at + (_LANES - 1) * _PART + _STEPS < last and _lockstep(x, w, at, z, codes, values, i):
        begin, before = at, m
        lane, place, ahead, sign = 0, 0, _STEPS, 0
        while at < begin + _LANES * _PART:
            if place < i[_PLACE + lane]:
                code, v = codes[place], values[place]
                end, sign = code >> 1, 2 * (code & 1) - 1
                place += 1
            else:  # the next part does not agree yet
                end, v, sign, _, _, _ = _segment(x, w, at, -sign * _bound(w, at - 1, last))
                code = 2 * end + (sign > 0)
            bad = bad or not np.isfinite(v)
            at, m = _emit(u, ends, signs, m, at, end + 1, v, sign)
            if lane < _LANES - 1:
                stop = i[_PLACE + lane + 1]
                while ahead < stop and codes[ahead] < code:
                    ahead += 1
                if ahead < stop and codes[ahead] == code:
                    lane, place, ahead = lane + 1, ahead + 1, (lane + 2) * _STEPS
        z = -sign * _bound(w, at - 1, last)
        if (m - before) * _SHORT < at - begin:
            break
    return at, z, m, bad


@compiled()
def _lockstep(x, w, at, z, codes, values, i):
    """The segments of each part, 2 end + (1 for a jump up) and value, from place `part _STEPS` on;
    whether all came to their ends before _STEPS samples. Parts but the first begin with z = 0."""
    f = np.zeros(11 * _LANES)
    i[:] = 0
    f[_S] = z
    for j in range(_LANES):
        f[_N + j], f[_MOVE + j] = 1.0, 64.0
        f[_LOW + j], f[_HIGH + j] = -np.inf, np.inf
        i[_K + j], i[_PLACE + j], i[_SOUND + j] = at + j * _PART, j * _STEPS, 1
    edges = len(w) > 1
    for _ in range(_STEPS // 32):
        for _ in range(32):
            for j in range(_LANES):
                k = i[_K + j]
                f[_Y + j] = x[k]
                f[_B + j] = w[k] if edges else w[0]
            _advance(f, i)
            for j in range(_LANES):  # overwritten, unless a segment ended
                codes[i[_PLACE + j]] = i[_CODE + j]
                values[i[_PLACE + j]] = f[_V + j]
                i[_PLACE + j] += i[_ENDS + j]
        through = sound = True
        for j in range(_LANES):
            through &= i[_K + j] >= at + (j + 1) * _PART
            sound &= i[_SOUND + j] > 0
        if through or not sound:
            return sound
    return False


@compiled()
def _advance(f, i):
    """One sample more for each lane: `_segment` without a branch, which makes it vector code."""
    for j in range(_LANES):
        b, n, s, base = f[_B + j], f[_N + j], f[_S + j], f[_BASE + j]
        low, high, move = f[_LOW + j], f[_HIGH + j], f[_MOVE + j]
        k, lowest, highest = i[_K + j], i[_LOWEST + j], i[_HIGHEST + j]
        i[_SOUND + j] = i[_SOUND + j] if b > 0.0 else 0  # weights of 0 are for `_segment`
        base = f[_Y + j] if n == 1.0 else base
        s += f[_Y + j] - base
        share = 1.0 / n
        a, c = (s - b) * share, (s + b) * share
        up, down = a > high, c < low
        over = up | down
        end = highest if up else lowest
        i[_CODE + j] = 2 * end + 1 if up else 2 * end
        f[_V + j] = (high if up else low) + base
        z = -f[_B_HIGH + j] if up else f[_B_LOW + j]
        i[_ENDS + j] = 1 if over else 0
        i[_K + j] = end + 1 if over else k + 1
        i[_LOWEST + j] = k if a >= low else lowest
        i[_HIGHEST + j] = k if c <= high else highest
        f[_B_LOW + j] = b if a >= low else f[_B_LOW + j]
        f[_B_HIGH + j] = b if c <= high else f[_B_HIGH + j]
        low, high = a if a >= low else low, c if c <= high else high
        shift = s * share if n == move else 0.0
        f[_BASE + j] = base + shift
        f[_S + j] = z if over else s - n * shift
        f[_LOW + j] = -np.inf if over else low - shift
        f[_HIGH + j] = np.inf if over else high - shift
        f[_MOVE + j] = 64.0 if over else (2.0 * move if n == move else move)
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
