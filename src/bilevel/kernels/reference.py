"""What the kernels compute, in plain torch: slow, short, differentiable, for the tests."""

from __future__ import annotations

import torch
from torch import Tensor


def tv1d(x: Tensor, w: Tensor) -> Tensor:  # (n,), (n - 1,) -> (n,)
    """argmin 1/2 |u - x|^2 + sum_k w_k |u_{k+1} - u_k|, with the derivative that autograd finds.

    A segment that begins where the dual is z may have the value v up to sample k if
    s_k - w_k <= k v <= s_k + w_k, s_k = z + the sum of its samples, k its length. Where no value is
    left, it ends at the edge that gave the bound which is not met. Quadratic in n at worst.
    """
    n, begin, z, pieces = len(x), 0, x.new_zeros(()), []
    walls = torch.cat([w, w.new_zeros(1)])
    while begin < n:
        s, b = z + x[begin:].cumsum(0), walls[begin:]
        length = torch.arange(1, n - begin + 1).to(x)
        low, high = ((s - b) / length).cummax(0), ((s + b) / length).cummin(0)
        closed = (low.values > high.values) | (b == 0)
        k = int(closed.to(torch.int8).argmax())  # the first
        if low.values[k] <= high.values[k] or k == 0:  # an edge of weight 0
            size, value, sign = k + 1, s[k] / (k + 1), 0
        elif (s[k] - b[k]) / length[k] > high.values[k - 1]:
            size, value, sign = int(high.indices[k - 1]) + 1, high.values[k - 1], 1
        else:
            size, value, sign = int(low.indices[k - 1]) + 1, low.values[k - 1], -1
        pieces.append(value.expand(size))
        begin += size
        z = -sign * walls[begin - 1]
    return torch.cat(pieces) if pieces else x.clone()
