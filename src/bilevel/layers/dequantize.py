"""Quantised signals refined within their cells, as a module that owns the analysis operator."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..acceleration import Acceleration
from ..argmin import argmin
from ..differentiation.base import Strategy
from ..errors import OnFail
from ..operators import Matrix
from ..problem import Problem
from ..solvers.base import Solver
from ..terms import L1, Box
from ..terms.base import Proximable


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

    K = diag(weight) rows, with rows of length 1. The weights stand in the norm, which is the same
    energy, and lets one pair of step sizes suit every row: a trained K needs a fraction of the
    steps. `relaxed` learns with the cell's walls left out of the derivative (not of the solution).

    [1] Brauer, Zhao, Lorenz, Fingscheidt. Learning to dequantize speech signals by primal-dual
    networks. ICASSP, 2019.
    """

    def __init__(
        self,
        analysis: Tensor,  # (m, n), the K to start from
        *,
        solver: Solver | None = None,
        acceleration: Acceleration | None = None,
        diff: Strategy | None = None,
        relaxed: bool = False,
        tol: float | None = None,
        max_iter: int = 20_000,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        if not isinstance(analysis, Tensor) or analysis.ndim != 2:
            got = tuple(analysis.shape) if isinstance(analysis, Tensor) else type(analysis).__name__
            raise ValueError(f"Dequantize needs a matrix (m, n) to start from, got {got}.")
        lengths = analysis.norm(dim=1)
        if not bool((lengths > 0).all() & lengths.isfinite().all()):
            raise ValueError("Dequantize needs finite rows that are not 0: leave such rows out.")
        self.rows = nn.Parameter(analysis / lengths[:, None])
        self.log_weight = nn.Parameter(lengths.log())
        self.solver, self.acceleration, self.diff = solver, acceleration, diff
        self.relaxed, self.tol, self.max_iter = relaxed, tol, max_iter
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

    def energy(self, x: Tensor, radius: Tensor | float) -> Problem:
        """radius: half a cell, > 0; a number, or a tensor that broadcasts against x (B, n)."""
        if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != self.rows.shape[1]:
            got = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(
                f"Dequantize needs frames (B, {self.rows.shape[1]}), got {got}. For one frame pass "
                "frame[None]; a longer signal is cut into frames."
            )
        cell = Box(x - radius, x + radius)
        sparse = L1(weight=self.weight[None].to(x)) @ Matrix(self._units.to(x))
        return sparse + (Relaxed(cell) if self.relaxed else cell)

    def forward(self, x: Tensor, radius: Tensor | float) -> Tensor:  # (B, n) -> (B, n)
        return argmin(
            self.energy(x, radius),
            x0=x.detach(),
            solver=self.solver,
            acceleration=self.acceleration,
            diff=self.diff,
            tol=self.tol,
            max_iter=self.max_iter,
            on_fail=self.on_fail,
        )
