"""The Lagrangian at a solution, augmented so that it is finite and smooth in every parameter."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ._broadcast import inner
from .operators.base import Identity
from .problem import Problem
from .solvers.steps import convex, weak_convexity
from .terms.base import Composed
from .terms.composition import Composition, named
from .terms.envelopes import MoreauEnvelope

Z = tuple[Tensor, ...]


def saddle_point(problem: Problem, x: Tensor, y: Z) -> Z:
    """(x, y) at a solution, with the dual of g, where there is one, before those of the h_i."""
    return (x, *y) if problem.g is None else (x, -problem.slope(x, y), *y)


def augmented_lagrangian(problem: Problem, x: Tensor, y: Z) -> Tensor:  # -> (B,)
    """L(x, y) = f(x) + sum_i min_u h_i(u) + <y_i, K_i x - u> + |K_i x - u|^2 / 2, with g, where
    there is one, as h_0, and K_0 = I: stationary at a `saddle_point`."""
    h = problem.h
    if problem.g is not None:
        h = (Composition(problem.g, Identity()), *h)
    parts = [_augmented(h_i, x, y_i) for h_i, y_i in zip(h, y, strict=True)]
    if problem.f is not None:
        parts.append(problem.f.value(x))
    return reduce(Tensor.add, parts)


def _augmented(h: Composed, x: Tensor, y: Tensor) -> Tensor:  # -> (B,)
    """min over u of h(u) + <y, Kx - u> + |Kx - u|^2 / 2s = envelope of h at (Kx + s y) - s/2 |y|^2.

    s = 1, less for a weakly convex h.
    """
    image = h.operator(x)
    rho = float(torch.as_tensor(weak_convexity(h.outer, image)).max())
    if h.outer.tuned_by_step or not (rho or convex(h.outer, image)):
        raise TypeError(
            f"the augmented Lagrangian needs terms with a value and a continuous prox, which "
            f"{named(h.outer)} has not. Its minimiser is found by argmin, with FixedPoint()."
        )
    s = min(1.0, 0.5 / rho) if rho else 1.0
    return MoreauEnvelope(h.outer, s).value(image + s * y) - s / 2 * inner(y, y)
