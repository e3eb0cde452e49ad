"""Is a solution the only one?"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._broadcast import eps, expand, norm_event
from ._tangents import constant
from .differentiation.active import Active
from .differentiation.tangent import Spanned

if TYPE_CHECKING:
    from .problem import Problem

Z = tuple[Tensor, ...]


class Unique(Enum):
    """What is known of a solution of a convex energy."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


def unique(problem: Problem, x: Tensor, y: Z) -> tuple[Unique, ...]:
    """One answer a sample, for a convex energy and an accurate (x, y).

    YES  the terms declare a strong convexity, or the energy's second derivative along the active
         manifold is positive definite there and the manifold cannot change: its margin is positive
    NO   a direction was found that leaves the energy as it is: one in the kernel of that second
         derivative, on the manifold, or at a kink on one of those that meet there
    Else UNKNOWN; so for tangent spaces of more than 512 dimensions, and for margins not known.
    """
    with constant():
        mu = sum(term.strong_convexity(x) for term in problem.terms)
        sure = torch.as_tensor(mu, device=x.device).expand(len(x)) > 0
        if bool(sure.all()):
            return (Unique.YES,) * len(x)
        active = Active(problem, (x, *y))
        dense = active.tangent
        if not isinstance(dense, Spanned):
            return tuple(Unique.YES if s else Unique.UNKNOWN for s in sure.tolist())
        holds = active.margin > _coarse(x) * norm_event(x)
        sure = sure | (holds & ~dense.flat(_coarse(x)).any(1))
        flat = _leaves_energy(problem, x, dense)
        for side in active.sides:
            if isinstance(side.tangent, Spanned) and not bool((holds | sure | flat).all()):
                flat = flat | (~holds & _leaves_energy(problem, x, side.tangent))
    pairs = zip(sure.tolist(), flat.tolist(), strict=True)
    return tuple(Unique.YES if s else Unique.NO if f else Unique.UNKNOWN for s, f in pairs)


def _coarse(x: Tensor) -> float:
    """What an accurate solution is surely right to, relatively."""
    return eps(x) ** 0.5


def _leaves_energy(problem: Problem, x: Tensor, dense: Spanned) -> Tensor:  # (B,) bool
    """Whether a step along a direction of the tangent space with no curvature leaves the energy."""
    here, size = problem.value(x), norm_event(x)
    size = torch.where(size > 0, size, 1.0)
    scale = torch.stack([here.abs(), problem.value(0 * x).abs(), problem.value(2 * x).abs()])
    allowed = 1e3 * eps(x) * torch.where(scale.isfinite(), scale, 0.0).amax(0)
    found = torch.zeros_like(here, dtype=torch.bool)
    flat = dense.flat(eps(x))
    for j in flat.any(0).nonzero()[:, 0].tolist():
        d = dense.direction(j)
        for step in (1e-1, 1e-2, 1e-3, -1e-1, -1e-2, -1e-3):
            moved = problem.value(x + expand(step * size, x) * d)
            found = found | (flat[:, j] & ((moved - here).abs() <= allowed))
    return found
