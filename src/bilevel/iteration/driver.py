"""A run: how accurate, how long, and what it writes down; loops.py does the work."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .._memory import keep_freed
from .._tangents import constant
from ..acceleration.base import Acceleration
from ..differentiation.certificate import Certificate
from ..errors import OnFail
from ..fixpoint import Fixpoint
from ..solvers.base import Solver, Z
from .looks import look_later
from .loops import Free, Recorded


def default_tol(dtype: torch.dtype, composed: bool) -> float:
    """1e-5 in float32; in float64 1e-8, and 1e-6 with composed terms, the slow ones."""
    return 1e-5 if dtype != torch.float64 else 1e-6 if composed else 1e-8


@dataclass
class Run:
    """run(fixpoint, z0) -> z: a sample is done, and stays as it is, at a relative duality gap <=
    tol where the problem has one, else at a relative residual of T <= tol; with `settle`, both.
    """

    acceleration: Acceleration
    tol: float
    max_iter: int
    max_time: float | None = None  # seconds
    dtype: torch.dtype = torch.float64
    settle: bool = False  # a gradient will be asked for
    on_fail: OnFail = "raise"
    certificate: Certificate = field(default_factory=lambda: Certificate())
    asked_adjoint_tol: float | None = None
    started: float = field(default_factory=time.monotonic)
    _answered: tuple[Z, tuple[Z, Tensor]] | None = field(default=None, init=False, repr=False)

    def __call__(
        self,
        fixpoint: Fixpoint,
        z0: Z,
        record: bool = False,
        segment: int | None = None,
        identified: int | None = None,
    ) -> Z:
        """With `identified`, it ends, too, when the active set has kept for these steps, and
        returns the iterate at which that set was first seen."""
        if record:
            _check_recordable(fixpoint.solver)
            return Recorded(self, fixpoint, z0).loop(segment)
        if fixpoint.solver.explicit and len(z0[0]):
            return self._evaluate(fixpoint, z0)
        arrived = self.arrive(fixpoint, z0)
        if arrived is not None:
            with constant():
                there, first = arrived
                z = there.T(first)
                if self.shown(there, z0, first, z):
                    return z
        keep_freed()
        with constant():
            z0 = fixpoint.solver.draft(fixpoint.problem, z0, self.tol)
            return Free(self, fixpoint, z0, identified).loop()

    def _evaluate(self, fixpoint: Fixpoint, z0: Z) -> Z:
        """The formula of an explicit solver, recorded in grad mode. Right up to rounding: what the
        certificate tells of it is worked out when it is read."""
        z, iterations = fixpoint.solver.solve(fixpoint.problem, z0, self)  # type: ignore[attr-defined]
        x, told = z[0].detach(), self.certificate
        finite = math.isfinite(x.sum().item())
        told.solver, told.iterations = type(fixpoint.solver).__name__, iterations
        told.converged = iterations > 0 if finite else x.flatten(1).isfinite().all(1)
        look_later(self, fixpoint, z0, (x,), "residual", "gap")
        return z

    def answer(self, fixpoint: Fixpoint, z0: Z) -> tuple[Z, Tensor]:
        """(z, iterations) of an external solver, found once."""
        if self._answered is None or self._answered[0] is not z0:
            self._answered = z0, fixpoint.solver.solve(fixpoint.problem, z0, self)  # type: ignore[attr-defined]
        return self._answered[1]

    def arrive(self, fixpoint: Fixpoint, z0: Z) -> tuple[Fixpoint, Z] | None:
        """(the fixed point around z, z) for an answer z that one step of T proves: the step mends
        what rounding left of z, and says how much. None where no step is known to."""
        if not (fixpoint.solver.proves and len(z0[0]) and self.max_iter > 1):
            return None
        with constant():
            z, _ = self.answer(fixpoint, z0)
            there = fixpoint.near(z)
        return (there, z) if there.solver.flat else None

    def shown(self, fixpoint: Fixpoint, z0: Z, first: Z, z: Z) -> bool:
        """Whether z = T(first) proves the answer `first`: then the certificate is told."""
        told, converged = self.certificate, fixpoint.change(first, z) <= self.tol
        if not bool(converged.all()) or not fixpoint.solver.keeps(z):
            return False
        told.solver, told.converged = type(fixpoint.solver).__name__, converged
        told.iterations = self.answer(fixpoint, z0)[1] + 1
        look_later(self, fixpoint, z0, z, "residual", "gap")
        return True

    @property
    def adjoint_tol(self) -> float:
        """The relative residual that suffices for the adjoint of a solution of this accuracy,
        unless another was asked for."""
        if self.asked_adjoint_tol is not None:
            return self.asked_adjoint_tol
        return max(self.tol / 10, 1e-12 if self.dtype == torch.float64 else 1e-4)

    def out_of_time(self) -> bool:
        return self.max_time is not None and time.monotonic() - self.started > self.max_time


def _check_recordable(solver: Solver) -> None:
    if not solver.recordable:
        raise TypeError(
            f"Unroll() cannot record {type(solver).__name__}: what it does is no sequence of steps "
            "to be differentiated. Use FixedPoint() or Implicit(), which need the solution only, "
            "or an iterative solver such as ForwardBackward() or PrimalDual()."
        )
