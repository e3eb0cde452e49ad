"""Differentiate a solution that is a formula."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from . import probes
from .base import Strategy
from .system import System

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run
    from .base import Z


@dataclass(frozen=True)
class Explicit(Strategy):
    """z(θ) as autograd records it, for an explicit solver: derivatives of every order that the
    formula has, and no linear system. That of T is solved where a probe asks for it."""

    settles = False

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        (z,) = run(fixpoint, z0)
        if z.requires_grad:
            z.register_hook(partial(_reached, run, fixpoint, z.detach()))
        return (z,)


def _reached(run: Run, fixpoint: Fixpoint, z: Tensor, cotangent: Tensor) -> None:
    """Backward has come to z."""
    if not bool(cotangent.any()):  # as from `minimum`: there is nothing to solve
        return
    certificate = run.certificate
    certificate.adjoint_residual, certificate.adjoint_iterations = z.new_zeros(len(z)), 0
    if probes.active() is not None:
        system = System((z,), fixpoint.residual, None, run.adjoint_tol, run.on_fail, certificate)
        system.solve(cotangent.detach().flatten(1), transposed=True)
