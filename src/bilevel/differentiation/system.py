"""The adjoint solves of implicit differentiation: what is noise, and what was not solved."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import binary_unit
from ..errors import NotConverged, NotUnique, OnFail, fail
from . import probes
from .certificate import Certificate
from .inverse import Direct, Inverse
from .linear_solvers import CG, GMRES, BiCGStab, LinearSolution, LinearSolver
from .linearisation import Linearisation
from .pieces import Pieces, PiecewiseInverse
from .series import Series
from .unit import Unit

if TYPE_CHECKING:
    from ..problem import Problem

Z = tuple[Tensor, ...]


class System:
    """M d = b and M* w = b, M = d residual / dz frozen at the solution z, as backward passes ask
    for them; told of in the certificate."""

    def __init__(
        self,
        z: Z,
        equation: Callable[[Z], Z],  # z -> residual, 0 at the solution
        solver: LinearSolver | None,
        tol: float,  # for a solver that names none
        on_fail: OnFail,
        certificate: Certificate,
        direct: Direct | None = None,
        energy: Problem | None = None,  # whose gradient the residual is
        pieces: Pieces | None = None,  # of the equation, recorded anew for each solve
        made: bool = False,  # whether the chord steps change the values, too
    ) -> None:
        self.M = Linearisation(z, equation)
        smooth = energy is not None
        if pieces is None:
            self.inverse = Inverse(self.M, solver, tol, direct, smooth)
        else:
            self.inverse = PiecewiseInverse(self.M, pieces, solver, tol, smooth)
        self.energy, self.pieces, self.certificate, self.made = energy, pieces, certificate, made
        if pieces is None and not isinstance(solver, Unit):
            self.M.recorded  # noqa: B018  at the parameters of now: they may change before backward
        self.on_fail: OnFail = on_fail
        # the backward pass, its largest right-hand side, and the residual left of it
        self._noise: tuple[int, Tensor, Tensor] | None = None

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        """M^-1 b or M*^-1 b; 0 for right-hand sides at the noise level of this backward pass."""
        length = torch.linalg.vector_norm(b, dim=1)
        unit, part = binary_unit(b, length), b
        if unit is not None:
            part = b / unit[:, None]
            length = torch.linalg.vector_norm(part, dim=1).double() * unit
        quiet, scale = self._quiet(length)
        if bool(quiet.all()):
            return torch.zeros_like(b)
        probe = probes.active() if transposed else None
        if not bool(scale.isfinite().all()):
            return self._solve_finite(b, scale.isfinite(), transposed)
        whole = (scale if unit is None else scale / unit).to(b.dtype)
        solution = self.inverse(part, transposed, whole, probe and probe.start(part))
        x, left = solution.x, solution.residual * scale
        if bool(quiet.any()):
            x, left = torch.where(quiet[:, None], 0.0, x), torch.where(quiet, 0.0, left)
        current, _, before = self._noise  # type: ignore[misc]
        self._noise = (current, scale, torch.maximum(left, before))
        self._judge(solution, quiet, part, transposed)
        x = x if unit is None else x * unit[:, None]
        if probe is not None:
            probe.solved(self, x, b)
        return x

    def _solve_finite(self, b: Tensor, finite: Tensor, transposed: bool) -> Tensor:
        """The samples whose right-hand side is finite; NaN for the others, if that is accepted."""
        fail(
            NotConverged(
                "the gradient that reaches the solution is NaN or inf in "
                f"{int((~finite).sum())} of {len(b)} samples: the loss is not finite there, or has "
                "no derivative. Look for a division, a root or a logarithm of 0 in the loss."
            ),
            self.on_fail,
        )
        self._noise = None
        solved = self.solve(torch.where(finite[:, None], b, 0.0), transposed)
        return torch.where(finite[:, None], solved, torch.nan)

    def _quiet(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """(is a right-hand side of this length noise?, the largest so far) in this backward pass,
        both (B,).

        The second chord step sees what the first solve left: it is noise up to the tolerance, or to
        what was reached.
        """
        current, scale, left = torch._C._current_graph_task_id(), length, torch.zeros_like(length)
        if self._noise is not None and self._noise[0] == current:
            scale, left = torch.maximum(length, self._noise[1]), self._noise[2]
        self._noise = (current, scale, left)
        quiet = length <= torch.maximum(1.5 * self.inverse.tol * scale, 2 * left)
        return quiet & length.isfinite(), scale

    def _judge(self, solution: LinearSolution, quiet: Tensor, b: Tensor, transposed: bool) -> None:
        """Write the certificate; raise or warn for an adjoint that was not solved."""
        residual = solution.residual.masked_fill(quiet, 0.0)
        if transposed:
            previous = self.certificate.adjoint_residual
            self.certificate.adjoint_residual = (
                residual if previous is None else torch.maximum(residual, previous)
            )
            self.certificate.adjoint_iterations = max(
                self.certificate.adjoint_iterations or 0, solution.iterations
            )
            self.certificate.update_estimate()
        failed = ~(residual <= self.inverse.accepted)  # NaN, too
        solver = self.inverse.solver
        if (solver is not None and not solver.exact) or not bool(failed.any()):
            return
        worst = float(solution.residual[failed].max())
        if self._inconsistent(solution, failed, b, transposed):
            fail(
                NotUnique(
                    f"the adjoint system has no solution ({int(failed.sum())} of {len(b)} samples, "
                    f"relative residual {worst:.1e}, none of it reachable): the loss reads a part "
                    "of the solution that the problem does not determine (a dual, or an x that is "
                    "not unique). Add a strongly convex term."
                ),
                self.on_fail,
            )
            return
        reached = f", bl.GMRES(tol={2 * worst:.0e}) say" if worst < 0.05 else ""
        fail(
            NotConverged(
                f"the adjoint solve ended at a relative residual of {worst:.1e}, asked was "
                f"{self.inverse.tol:.0e} ({int(failed.sum())} of {len(b)} samples, "
                f"{solution.iterations} products). Solve the problem more accurately, raise "
                f"max_iter of the linear solver, ask it for less{reached}, or accept the answer "
                "with on_fail='warn'."
            ),
            self.on_fail,
        )

    def _inconsistent(
        self, solution: LinearSolution, failed: Tensor, b: Tensor, transposed: bool
    ) -> bool:
        """Whether what is left of b is nearly orthogonal to the range: no solver can reduce it."""
        product, adjoint = self.M.products(transposed), self.M.products(not transposed)
        x, solver = solution.x, self.inverse.solver
        if isinstance(solver, CG | BiCGStab | Series):  # what is left need not fall step by step
            x = GMRES(max_iter=300)(product, b, tol=self.inverse.tol).x
        left = b - product(x)
        size = torch.linalg.vector_norm(left, dim=1)
        reachable = torch.linalg.vector_norm(adjoint(left), dim=1)
        return bool((reachable <= 1e-3 * size)[failed & (solution.residual > 1e-6)].any())
