"""Chord-Newton steps that carry the derivatives of a solution, up to a chosen order."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._autocast import full_precision
from .._broadcast import difference, inner
from .._tangents import depends
from ..errors import OnFail
from . import probes
from .certificate import Certificate
from .inverse import Direct
from .linear_solvers import LinearSolver
from .pieces import Pieces
from .system import System

if TYPE_CHECKING:
    from ..problem import Problem

Z = tuple[Tensor, ...]


class Solve(torch.autograd.Function):
    """M^-1 or M*^-1 as a node whose backward is the transposed solve, itself such a node.

    `level` counts how many derivatives lie behind a node. The forward solve of the chord step,
    level 0, has a right-hand side that is zero up to the accuracy of the solution, and returns 0;
    itself where the step is `made`.
    Each node takes T(z) as a formal input: so its backward runs, and the order is checked, even
    where the loss is linear and no cotangent would reach it.
    """

    @staticmethod
    def forward(
        ctx, system: System, transposed: bool, level: int, order: int, count: int, *tensors: Tensor
    ):
        ctx.node = (system, transposed, level, order, count)
        rhs = tensors[:count]
        ctx.save_for_backward(*tensors[count:])
        ctx.save_for_forward(*tensors[count:])
        if level == 0 and system.made:
            return tuple(part.clone() for part in rhs)
        if level == 0:
            return tuple(torch.zeros_like(part) for part in rhs)
        with full_precision():
            solved = system.M.split(system.solve(system.M.flatten(tuple(rhs)), transposed))
        if system.pieces is not None:
            system.M.forget()
        return solved

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        system, transposed, level, order, count = ctx.node
        if level >= order:
            raise RuntimeError(_beyond(order))
        batched = torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
        if any(batched(c) for c in cotangents):
            raise RuntimeError(
                "a solution of argmin has no batched backward (is_grads_batched=True, "
                "vectorize=True, torch.vmap). Call autograd.grad once for each cotangent."
            )
        formal = ctx.saved_tensors
        solved = Solve.apply(system, not transposed, level + 1, order, count, *cotangents, *formal)
        if level == 0:
            _weigh(system, solved, formal, order)  # type: ignore[arg-type]
        return (None,) * 5 + tuple(solved) + (None,) * len(formal)  # type: ignore[operator]

    @staticmethod
    def jvp(ctx, *tangents: Tensor | None):  # type: ignore[override]
        """M is a constant: the tangent of M^-1 r is M^-1 r', itself such a node."""
        system, transposed, level, order, count = ctx.node
        if level >= order:
            raise RuntimeError(_beyond(order))
        formal = ctx.saved_tensors
        pairs = zip(tangents[5 : 5 + count], formal, strict=True)
        moves = (torch.zeros_like(part) if t is None else t for t, part in pairs)
        return Solve.apply(system, transposed, level + 1, order, count, *moves, *formal)


def _weigh(system: System, adjoint: Z, residual: Z, order: int) -> None:
    """loss(x) - loss(solution) ~ -<w, z - T(z)>, the dual-weighted residual (Becker, Rannacher
    2001): what a Newton step would change. Of the first chord step; the others are quiet."""
    pairs = [inner(w, r.detach()) for w, r in zip(adjoint, residual, strict=True)]
    weighed = -reduce(Tensor.add, pairs)
    probe = probes.active()
    if probe is not None and order > 1 and weighed.requires_grad:
        probe.weighed.append(weighed)
    error = weighed.detach()
    before = system.certificate.loss_error
    system.certificate.loss_error = (
        error if before is None else torch.where(error == 0, before, error)
    )


def _beyond(order: int) -> str:
    if order == 1:
        return (
            "a second derivative of a solution was asked for, but its strategy gives first "
            "derivatives only. Pass diff=FixedPoint() or Implicit() to argmin; Truncated and "
            "OneStep have no second."
        )
    return (
        f"derivative {order + 1} of a solution was asked for, but its strategy is right up to "
        f"derivative {order} only. Pass diff=FixedPoint(order={order + 1}) or "
        f"Implicit(order={order + 1}) to argmin."
    )


def differentiable(
    z: Z,
    residual: Callable[[Z], Z],
    solver: LinearSolver | None,
    order: int,
    tol: float,
    on_fail: OnFail,
    certificate: Certificate,
    direct: Direct | None = None,
    energy: Problem | None = None,  # whose gradient the residual is
    pieces: Pieces | None = None,  # the residual, recorded anew by each backward pass
    made: bool = False,  # M = I, and the values shall be those after the steps
) -> Z:
    """z with the derivatives, up to `order`, of the solution of residual(z) = 0: order chord-Newton
    steps, recorded.

    z_0 = z detached,  z_{k+1} = z_k - M^-1 residual(z_k),  M = d residual/dz at z_0, frozen. The
    values do not change, unless the steps are `made`.
    """

    recorded = residual if pieces is None else pieces
    with torch.enable_grad():
        fixed = tuple(part.detach() for part in z)
        rest = recorded(fixed)
        if not depends(rest):
            return difference(fixed, rest) if made else fixed  # no θ with a gradient or a tangent
        system = System(
            z, residual, solver, tol, on_fail, certificate, direct, energy, pieces, made
        )
        current = fixed
        for k in range(order):
            if k:
                rest = recorded(current)
            step = Solve.apply(system, False, 0, order, len(rest), *rest, *rest)
            current = difference(current, step)  # type: ignore[arg-type]
        return current
