"""Smooth constrained problems: augmented Lagrangians, each minimised by SciPy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._broadcast import tiny

if TYPE_CHECKING:
    from .conditions import Conditions

_ROUNDS, _CLOSE = 30, 1e-6  # near enough for Newton


def minimised(conditions: Conditions, y: Tensor) -> Tensor:
    """The whole batch at once, by L-BFGS-B on

        objective / s + rho/2 |equality + nu/rho|^2 + rho/2 |max(inequality + nu/rho, 0)|^2,

    nu <- nu + rho c after each round [1], s = min(1, steepness at the start): small slopes are
    slopes. What is left is the caller's to look at.

    [1] Hestenes. Multiplier and gradient methods. 1969.
    """
    if not len(y):
        return y
    unit = conditions.steepness(y).clamp(tiny(y), 1.0)

    def value(y: Tensor) -> Tensor:
        return (conditions.value(y) / unit).sum()

    c = conditions.constraints(y)
    if not c.shape[1]:
        return _descended(value, y)
    free = torch.arange(c.shape[1], device=y.device) >= conditions.equalities(y)  # one-sided
    nu, rho, before = torch.zeros_like(c), 10.0, torch.inf
    for _ in range(_ROUNDS):

        def lagrangian(y: Tensor, nu: Tensor = nu, rho: float = rho) -> Tensor:
            shifted = conditions.constraints(y) + nu / rho
            shifted = torch.where(free, shifted.clamp(min=0), shifted)
            return value(y) + rho / 2 * shifted.square().sum()

        y = _descended(lagrangian, y)
        c = conditions.constraints(y)
        missed = torch.where(free, torch.maximum(c, -nu / rho), c).abs().amax()
        nu = nu + rho * c
        nu = torch.where(free, nu.clamp(min=0), nu)
        if float(missed) <= _CLOSE:
            break
        rho, before = (rho if missed < before / 4 else 10 * rho), missed
    return y


def _descended(function, start: Tensor) -> Tensor:
    from scipy.optimize import minimize  # not with `import bilevel`

    def evaluated(flat: np.ndarray) -> tuple[float, np.ndarray]:
        with torch.enable_grad():
            y = torch.from_numpy(flat.copy()).to(start).reshape(start.shape).requires_grad_()
            value = function(y)
            (gradient,) = torch.autograd.grad(value, y)
        return value.item(), gradient.flatten().double().numpy(force=True)

    found = minimize(
        evaluated, start.flatten().double().numpy(force=True), jac=True, method="L-BFGS-B",
        options={"maxiter": 5000, "maxfun": 20_000, "gtol": 1e-7, "ftol": 1e-15, "maxcor": 20},
    )  # fmt: skip
    return torch.from_numpy(found.x).to(start).reshape(start.shape)
