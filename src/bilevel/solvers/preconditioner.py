"""Diagonal step sizes for primal-dual methods."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from ..problem import Problem
from ..terms.base import Proximable


def diagonal_steps(
    problem: Problem, proximal: Proximable | None, x0: Tensor, L: Scalar, margin: float
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """tau_j = margin / (sum_i |K_ij| + L/2), sigma_i = 1 / sum_j |K_ij|: a step for each
    coordinate.

    `proximal` is the term handled by its prox in the update of x. A term whose prox is not
    separable gets the least step of each group of coordinates that it ties together
    (`Proximable.admissible`).

    [1] Pock, Chambolle. Diagonal preconditioning for first order primal-dual algorithms. ICCV,
    2011.
    """
    columns, sigmas = [torch.zeros_like(x0[:1])], []
    for h in problem.h:
        absolute = h.operator.absolute()
        ones = torch.ones_like(x0[:1] if absolute.shared else x0)
        rows = absolute(ones)
        rows = torch.where(rows > 0, rows, rows.amax().clamp_min(1e-30))  # K is 0 there: any step
        sigmas.append(h.outer.admissible(1 / rows))
        columns.append(absolute.adjoint(torch.ones_like(rows)))
    half = torch.as_tensor(L, dtype=x0.dtype, device=x0.device) / 2
    total = reduce(Tensor.add, columns) + expand(half, x0)
    tau = margin / torch.where(total > 0, total, total.amax().clamp_min(1e-30))
    return proximal.admissible(tau) if proximal is not None else tau, tuple(sigmas)
