"""Is the gradient of a least value the only one? It is that of one solution, where there may be
several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import probes


class Least(NamedTuple):
    """A least value (B,) that a backward pass has reached, with this cotangent."""

    cotangent: Tensor
    difference: Callable[[int], Tensor]  # seed -> (B,): L at another solution less L here, recorded


def watched(value: Tensor, difference: Callable[[int], Tensor]) -> Tensor:
    """The value, which a probe of its gradient will hear of."""
    return _Watched.apply(value, difference)  # type: ignore[return-value]


class _Watched(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value: Tensor, difference: Callable[[int], Tensor]):
        ctx.difference = difference
        return value.view_as(value)

    @staticmethod
    def backward(ctx, cotangent: Tensor):
        probe = probes.active()
        if probe is not None:
            probe.values.append(Least(cotangent.detach(), ctx.difference))
        return cotangent, None


def spread(least: Least, parameters: Sequence[Tensor]) -> float:
    """How far the gradients at solutions found from two other starts are from the one given."""
    worst = 0.0
    for seed in (0, 1):
        with torch.enable_grad():
            apart = (least.cotangent * least.difference(seed)).sum()
        grads = torch.autograd.grad(apart, parameters, retain_graph=True, allow_unused=True)
        squares = [float(g.square().sum()) for g in grads if g is not None]
        worst = max(worst, sum(squares) ** 0.5)
    return worst
