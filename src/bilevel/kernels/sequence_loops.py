"""Compiled passes over the iterates of a run, (B, n)."""

from __future__ import annotations

import numpy as np

from .compiled import compiled

_fast = compiled(fastmath={"contract", "nsz", "reassoc"})  # NaN and inf stay


@_fast
def anchored(begin, end, size, weights, t, z, anchor, out, squares):
    """out = weights[0] t + weights[1] z + weights[2] anchor and squares[:, k] = |t - z|^2, in the
    parts k of `size` columns from begin to end; weights (3, B). out may be z."""
    new = np.empty(size, t.dtype)  # not z's memory: so the vectoriser takes the loop
    for i in range(len(t)):
        a, b, c = weights[0, i], weights[1, i], weights[2, i]
        for k in range(begin, end):
            part, total = slice(k * size, (k + 1) * size), t.dtype.type(0)
            ts, zs, anchors, outs = t[i, part], z[i, part], anchor[i, part], out[i, part]
            for j in range(len(ts)):
                total += (ts[j] - zs[j]) ** 2
            for j in range(len(ts)):
                new[j] = a * ts[j] + b * zs[j] + c * anchors[j]
            for j in range(len(ts)):
                outs[j] = new[j]
            squares[i, k] = total
