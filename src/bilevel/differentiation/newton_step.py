"""How far a solution is from the exact one: the Newton step that is left."""

from __future__ import annotations

import torch
from torch import Tensor

from .._broadcast import norm_event, tiny
from .linear_solvers import GMRES
from .system import System

_LOOSE = GMRES(tol=1e-2, basis=100, max_iter=100)


@torch.no_grad()
def newton_step(system: System) -> Tensor:  # -> (B,)
    """|e| / |x| for the Newton step e = M^-1 (z - T(z)), of its first part, the solver's x.

    Where T is smooth, or on its active set at z (semismooth), |z - z*| = |e| + O(|e|^2): the
    Newton-Kantorovich theorem. By the structure of the problem, where the adjoint is, else only to
    1e-2, by 100 products at most, and nan where these leave more than a tenth.
    [1] Kantorovich. On Newton's method for functional equations. 1948.
    [2] Qi, Sun. A nonsmooth version of Newton's method. Math. Program., 1993.
    """
    M = system.M
    rest = M.flatten(M.residual).detach()
    if system.inverse.direct is not None:
        step = system.inverse(rest, transposed=False).x
    else:
        solution = _LOOSE(M.product, rest)
        step = torch.where((solution.residual <= 0.1)[:, None], solution.x, torch.nan)
    e, x = norm_event(M.split(step)[0]), norm_event(M.z[0])
    return e / x.clamp_min(tiny(x))
