"""The two products with the derivative of 1-D total variation, each in linear time.

u is the mean of x over each segment S, + (sign w behind it - sign w before it) / |S|: linear in x
and w as long as the segments stay, which `taut_string.solve` writes down.
"""

from __future__ import annotations

from .compiled import compiled

_ANY_ORDER = {"reassoc", "contract"}  # of a sum, so that it can be made in parallel


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
