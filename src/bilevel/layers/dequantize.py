"""Quantised signals refined within their cells, as a module that owns the analysis operator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..acceleration import Plain
from ..argmin import argmin
from ..differentiation.base import Strategy
from ..errors import OnFail
from ..operators import Matrix
from ..problem import Problem
from ..solvers import PrimalDual, Solver
from ..terms import L1, Box
from ..terms.base import Proximable

STEP = 0.12  # the step size in units of the cell over the mean weight; any converges


@dataclass(frozen=True, eq=False)
class Relaxed(Proximable):
    """g itself in the forward pass; its prox passes every derivative on, as if g were 0.

    On purpose not the derivative. The solution of a linear program sits at a vertex: it changes by
    jumps when K moves as far as one step of learning moves it, and the exact derivative, which sees
    no jump, leads nowhere. Without the walls it tells where the solution is drawn to.
    """

    term: Proximable

    def value(self, x: Tensor) -> Tensor:
        return self.term.value(x)

    def prox(self, x: Tensor, step: Tensor | float) -> Tensor:
        return x + (self.term.prox(x, step) - x).detach()

    def take(self, index: Tensor, x: Tensor) -> Relaxed | None:
        term = self.term.take(index, x)
        return None if term is None else Relaxed(term)


class Dequantize(nn.Module):
    """argmin over u of |K u|_1 with |u - x| <= radius: of all the signals that were rounded to x,
    the one that K finds simplest. K (m, n) is learned.

    With `steps` it is what so many steps of PrimalDual make of x. The solution of a linear program
    sits at a vertex, with many samples at the walls of their cells; on the way there u is smoother,
    and nearer to clean sound if K was learned for as many steps.

    K = diag(weight) rows, with rows of length 1. The weights stand in the norm, which is the same
    energy, and lets one pair of step sizes suit every row. `relaxed` learns with the walls left out
    of the derivative (not of u).

    [1] Brauer, Zhao, Lorenz, Fingscheidt. Learning to dequantize speech signals by primal-dual
    networks. ICASSP, 2019.
    """

    def __init__(
        self,
        analysis: Tensor,  # (m, n), the K to start from
        *,
        steps: int | None = None,  # None: to the solution
        relaxed: bool = False,
        solver: Solver | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        if not isinstance(analysis, Tensor) or analysis.ndim != 2:
            got = tuple(analysis.shape) if isinstance(analysis, Tensor) else type(analysis).__name__
            raise ValueError(f"Dequantize needs a matrix (m, n) to start from, got {got}.")
        if not analysis.is_floating_point():
            raise ValueError(f"Dequantize needs a matrix of real floats, got {analysis.dtype}.")
        lengths = analysis.norm(dim=1)
        if not bool((lengths > 0).all() & lengths.isfinite().all()):
            raise ValueError("Dequantize needs finite rows that are not 0: leave such rows out.")
        if steps is not None and steps < 1:
            raise ValueError(f"Dequantize takes at least 1 step, got {steps}.")
        self.rows = nn.Parameter(analysis / lengths[:, None])
        self.log_weight = nn.Parameter(lengths.log())
        self.steps, self.relaxed = steps, relaxed
        self.solver, self.diff, self.tol = solver, diff, tol
        self.on_fail: OnFail = on_fail

    @property
    def weight(self) -> Tensor:  # (m,)
        return self.log_weight.exp()

    @property
    def analysis(self) -> Tensor:  # K, (m, n)
        return self.weight[:, None] * self._units

    @property
    def _units(self) -> Tensor:
        return self.rows / self.rows.norm(dim=1, keepdim=True)

    def energy(self, x: Tensor, radius: float) -> Problem:  # radius: half a cell, > 0
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.rows.shape[1]:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"Dequantize needs frames (B, {self.rows.shape[1]}), got {got}. For one frame pass "
                "frame[None]; a longer signal is cut into frames."
            )
        cell = Box(x - radius, x + radius)
        sparse = L1(weight=self.weight[None].to(x)) @ Matrix(self._units.to(x))
        return sparse + (Relaxed(cell) if self.relaxed else cell)

    def default_solver(self, radius: float) -> PrimalDual:
        """Its steps grow with the signal and shrink with K: the scales of both play no part."""
        return PrimalDual(step_size=STEP * radius / float(self.weight.detach().mean()))

    def forward(self, x: Tensor, radius: float) -> Tensor:  # (B, n) -> (B, n)
        energy = self.energy(x, radius)
        solver = self.default_solver(radius) if self.solver is None else self.solver
        start: dict[str, Any] = {"x0": x.detach(), "solver": solver, "diff": self.diff}
        if self.steps is None:
            return argmin(energy, **start, tol=self.tol, on_fail=self.on_fail)
        return argmin(energy, **start, acceleration=Plain(), max_iter=self.steps, on_fail="ignore")
