"""Step sizes found along the way, for smooth f or f + g."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._broadcast import axpy, eps, inner, tiny
from .base import Acceleration, State, Z
from .momentum import extrapolate, primal_only

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


@dataclass(frozen=True)
class ExactLineSearch(Acceleration):
    """Steepest descent with the exact step <g, g> / <g, Hg>, for quadratic f without g and h."""

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        quadratic_only(self, fixpoint, z)
        return ()

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        gradient, step = steepest(fixpoint, z)
        return (axpy(-step, gradient, z[0]),), state


def quadratic_only(rule: Acceleration, fixpoint: Fixpoint, z: Z) -> None:
    f, problem = fixpoint.problem.f, fixpoint.problem
    if f is None or not f.quadratic or problem.g is not None or problem.h:
        raise TypeError(
            f"{type(rule).__name__} needs a quadratic energy alone. Use Backtracking() or "
            "Nesterov()."
        )
    primal_only(rule, fixpoint, z)


def steepest(fixpoint: Fixpoint, z: Z) -> tuple[Tensor, Tensor]:
    """The gradient g (B, *event) of a quadratic, and the step (B,) to the least value along it."""
    (x,), f = z, fixpoint.problem.f
    assert f is not None
    gradient = f.grad(x)
    curved = inner(gradient, f.grad(x + gradient) - gradient)  # <g, Hg>
    return gradient, inner(gradient, gradient) / curved.clamp_min(tiny(x))


@dataclass(frozen=True)
class Backtracking(Acceleration):
    """Momentum with a step that halves until f lies below its quadratic model, and else grows by
    1.2.

    For f or f + g with an unknown Lipschitz constant (Beck, Teboulle 2009); with GradientDescent
    and ForwardBackward.
    """

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        solver: Any = fixpoint.solver
        if fixpoint.problem.f is None or fixpoint.problem.h:
            raise TypeError(
                "Backtracking needs a smooth f and no composed terms. Use Halpern() with "
                "PrimalDual()."
            )
        primal_only(self, fixpoint, z)
        ones = z[0].new_ones(len(z[0]))
        return z, 0 * ones, ones * solver.step_size

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        v, k, step = state
        f = fixpoint.problem.f
        assert f is not None
        value, gradient = f.value_and_grad(v[0])
        slack = 4 * eps(value) * value.abs()
        step = 1.2 * step
        for _ in range(60):
            solver: Any = replace(fixpoint.solver, step_size=step)  # type: ignore[type-var]
            new = replace(fixpoint, solver=solver).T(v)
            move = new[0] - v[0]
            model = value + inner(gradient, move) + inner(move, move) / (2 * step)
            fresh = f.value(new[0])
            bad = ~(fresh <= model + slack)  # NaN counts as bad
            level = (fresh - value).abs() <= 4 * slack  # rounding: only the gradients can tell
            if bool(level.any()):
                curved = inner(f.grad(new[0]) - gradient, move)
                bad = torch.where(level, curved * step > inner(move, move), bad)
            if not bool(bad.any()):
                break
            step = torch.where(bad, step / 2, step)
        ahead, k = extrapolate(v, new, z, k)
        return new, (ahead, k, step)
