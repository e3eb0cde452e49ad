"""How far a solution is from the exact one: the Newton step that is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import norm_event, tiny
from .linear_solvers import GMRES

if TYPE_CHECKING:
    from .probes import AdjointSolve
    from .system import System

_LOOSE = GMRES(tol=1e-2, basis=100, max_iter=100)


@torch.no_grad()
def newton_step(solve: AdjointSolve) -> tuple[Tensor, Tensor]:  # -> (B,), (B,)
    """|e| / |x| for the Newton step e = M^-1 (z - T(z)), of its first part, the solver's x; and the
    share of e that the gradient sees.

    Where T is smooth, or on its active set at z (semismooth), |z - z*| = |e| + O(|e|^2): the
    Newton-Kantorovich theorem. By the structure of the problem, where the adjoint is, else only to
    1e-2, by 100 products at most, and nan where these leave more than a tenth.
    [1] Kantorovich. On Newton's method for functional equations. 1948.
    [2] Qi, Sun. A nonsmooth version of Newton's method. Math. Program., 1993.
    """
    M = solve.system.M
    e, *duals = M.split(_solved(solve.system, M.flatten(M.residual).detach(), False))
    size = norm_event(e) / norm_event(M.z[0]).clamp_min(tiny(e))
    if not duals:
        return size, torch.ones_like(size)
    return size, _seen(solve, M.flatten((e, *(0 * part for part in duals))))


def _seen(solve: AdjointSolve, e: Tensor) -> Tensor:  # -> (B,)
    """(|M*^-1 e| / |e|) / (|M*^-1 b| / |b|), 1 at most: how much less of e the adjoint lets through
    than of b, the loss's gradient. A dual method's x lies beside its active manifold, and the part
    of e that brings it there moves the gradient in second order only."""

    def passed(w: Tensor, v: Tensor) -> Tensor:
        return norm_event(solve.system.M.split(w)[0]) / norm_event(v)

    share = passed(_solved(solve.system, e, True), e) / passed(solve.w, solve.b)
    return share.nan_to_num(1.0).clamp_max(1.0)


def _solved(system: System, b: Tensor, transposed: bool) -> Tensor:
    if system.inverse.direct is not None:
        return system.inverse(b, transposed).x
    solution = _LOOSE(system.M.products(transposed), b)
    return torch.where((solution.residual <= 0.1)[:, None], solution.x, torch.nan)
