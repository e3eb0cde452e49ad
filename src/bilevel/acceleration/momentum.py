"""Momentum and relaxation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import axpy, inner
from .base import Acceleration, State, Z

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


@dataclass(frozen=True)
class OverRelaxation(Acceleration):
    """z_{k+1} = z_k + rho (T(z_k) - z_k), 0 < rho < 2, on the averaged form of T (Condat 2013)."""

    rho: float = 1.8

    def __post_init__(self) -> None:
        if not 0 < self.rho < 2:
            raise ValueError(f"OverRelaxation needs 0 < rho < 2, got {self.rho}.")

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        limit = 1 + fixpoint.solver.reflection(fixpoint.problem, fixpoint.primal(z))
        if bool(torch.as_tensor(self.rho > limit).any()):
            raise ValueError(
                f"OverRelaxation with rho = {self.rho} cannot be shown to converge here: "
                f"{type(fixpoint.solver).__name__} with these steps allows rho <= "
                f"{float(torch.as_tensor(limit).min()):.3g}. Take a smaller rho or smaller steps."
            )
        return ()

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        return fixpoint.relaxed(z, self.rho), state


@dataclass(frozen=True)
class Nesterov(Acceleration):
    """z_{k+1} = T(v_k), v_{k+1} = z_{k+1} + k/(k+3) (z_{k+1} - z_k); FISTA for ForwardBackward.

    k counts since the last restart. A sample restarts when its momentum points uphill,
    <v_k - z_{k+1}, z_{k+1} - z_k> > 0 (O'Donoghue, Candes 2015).
    """

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        primal_only(self, fixpoint, z)
        return z, z[0].new_zeros(len(z[0]))

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        v, k = state
        new = fixpoint.T(v)
        ahead, k = extrapolate(v, new, z, k)
        return new, (ahead, k)


def primal_only(rule: Acceleration, fixpoint: Fixpoint, z: Z) -> None:
    """Refuse a method with dual variables, whose T has no energy to go down."""
    if len(z) > 1:
        raise TypeError(
            f"{type(rule).__name__} is for GradientDescent() and ForwardBackward(), got "
            f"{type(fixpoint.solver).__name__}. Use Halpern(), or Accelerated() where a term is "
            "strongly convex."
        )


def extrapolate(v: Z, new: Z, old: Z, k: Tensor) -> tuple[Z, Tensor]:
    """The point from which the next step goes, and the count since the last restart."""
    moves = [a - b for a, b in zip(new, old, strict=True)]
    uphill = reduce(Tensor.add, [inner(p - a, m) for p, a, m in zip(v, new, moves, strict=True)])
    k = torch.where(uphill > 0, 0.0, k + 1)
    beta = k / (k + 3)
    return tuple(axpy(beta, m, a) for a, m in zip(new, moves, strict=True)), k
