"""The one loop, recorded or not: when to look, when to stop, which samples leave, when Newton may
finish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._broadcast import eps, norm_event
from ._tangents import constant
from .acceleration.base import Acceleration, Plain, State, merge, where
from .differentiation.system import DENSE
from .differentiation.unrolled import stretch
from .fixpoint import Fixpoint
from .polish import polish
from .problem import relative_change
from .solvers.base import Solver, Z
from .solvers.external import External

if TYPE_CHECKING:
    from .driver import Run

_NEWTON = 200  # steps that a method of quadratic convergence may take


@dataclass(frozen=True, eq=False)
class Look:
    """What one plain T step, or the gap alone, tells about a batch."""

    z: Z  # T(the iterate), or the iterate itself where its gap is smaller
    residual: Tensor | None  # (B,); None: no step was made
    gap: Tensor | None  # (B,)
    finished: Tensor  # (B,) bool


class _Loop:
    """What both loops share: looking, and writing down the certificate's forward part."""

    def __init__(self, run: Run, fixpoint: Fixpoint, z: Z) -> None:
        self.run, self.fixpoint, self.z, self.k = run, fixpoint, z, 0
        batch, certificate = z[0].new_zeros(len(z[0])), run.certificate
        self._before = torch.zeros_like(batch, dtype=torch.long)  # iterations of an external solver
        certificate.solver = _named(fixpoint.solver, run.acceleration)
        certificate.residual = torch.full_like(batch, torch.inf)
        certificate.contraction = torch.full_like(batch, torch.nan)
        certificate.gap = torch.full_like(batch, torch.inf) if fixpoint.problem.has_gap else None
        certificate.iterations = torch.zeros_like(batch, dtype=torch.long)
        certificate.converged = torch.zeros_like(batch, dtype=torch.bool)
        # an energy that falls to 0 has no relative gap: below a millionth of the first, absolute
        with constant():
            first = fixpoint.value(z) if len(batch) else batch
        self._energy = torch.where(first.isfinite(), 1e-6 * first.abs(), 0.0)
        # and so for a solution that is 0
        self._size = 1e-6 * torch.stack([norm_event(part) for part in z]).amax(0).detach()
        inf = batch + torch.inf
        self._mark = (50, inf, inf.clone())  # a number of steps, the least gaps before and since

    @property
    def ended(self) -> bool:
        newton = self.fixpoint.solver.newton and self.k >= _NEWTON  # more would not help
        return newton or self.k >= self.run.max_iter or self.run.out_of_time()

    def steps(self) -> int:
        """Until the next look: 10 at first, then a sixth of the steps made, 100 at most."""
        solver = self.fixpoint.solver
        if solver.newton and isinstance(self.run.acceleration, Plain):
            return 0  # each look is a step
        return min(max(solver.stride, min(self.k // 6, 100)), self.run.max_iter - self.k)

    def look(self, fixpoint: Fixpoint, z: Z, rows: Tensor) -> Look:
        t = fixpoint.T(z)
        return self.judge(fixpoint, t, relative_change(z, t, self._size[rows]), rows)

    def glance(self, fixpoint: Fixpoint, z: Z, rows: Tensor) -> Look:
        """A look that makes its step only where the gap at z says that a sample may be done; for
        iterates that are an answer as they stand. Late in float32 a plain step adds noise to them.
        """
        gap = fixpoint.gap(z, self._energy[rows])
        if gap is None:
            return self.look(fixpoint, z, rows)
        done, last = gap <= self.run.tol, self.k >= 2 * self._mark[0] or self.ended
        if not last and not bool(done.any() | ~gap.isfinite().all()):
            return Look(z, None, gap, done)
        look = self.look(fixpoint, z, rows)
        if last:  # else a sample would end sooner in the company of one that is done
            done = done | look.finished
        assert look.gap is not None
        better = gap < look.gap
        gap = torch.where(better, gap, look.gap)
        if bool(better.any()):  # mostly of all samples, or of none: a copy saved
            look = replace(look, z=z if bool(better.all()) else where(better, z, look.z))
        return replace(look, gap=gap, finished=done)

    def judge(self, fixpoint: Fixpoint, t: Z, residual: Tensor, rows: Tensor) -> Look:
        gap = fixpoint.gap(t, self._energy[rows])
        tol = max(self.run.tol, 4 * eps(residual))
        settled = residual <= tol
        if bool(settled.any()):
            settled = settled & ~self._runs_away(fixpoint.primal(t), residual, rows)
        if gap is None:
            return Look(t, residual, gap, settled)
        small = gap <= tol
        both = self.run.settle or fixpoint.solver.newton  # a residual that is the error
        finished = small & settled if both else small
        finished = torch.where(gap.isfinite(), finished, settled)
        return Look(t, residual, gap, finished | self._stalled(gap, residual, rows))

    def _runs_away(self, x: Tensor, residual: Tensor, rows: Tensor) -> Tensor:  # -> (B,) bool
        """Whether x is only far out, and moves as fast as at the start: |x - T(x)| / |x| is small
        there for an energy without a minimiser, too."""
        if isinstance(self.fixpoint.solver, External):  # x did not come from the start by T
            return torch.zeros_like(residual, dtype=torch.bool)
        size = norm_event(x)
        far = size > 1e3 * norm_event(self.fixpoint.primal(self.z))[rows]
        if not bool(far.any()):
            return far
        t = self.fixpoint.T(self.z)
        first = (relative_change(self.z, t) * norm_event(self.fixpoint.primal(t)))[rows]
        moves = (residual + 4 * eps(x)) * size  # far enough out, rounding hides the move
        return far & (size > 1e3 * first) & (moves > 0.5 * first)

    def _stalled(self, gap: Tensor, residual: Tensor, rows: Tensor) -> Tensor:  # -> (B,) bool
        """Whether z is at rounding level and twice as many steps have not lessened the gap: a
        weight far from the scale of the data leaves a gap that the dtype cannot close."""
        at, before, least = self._mark
        least[rows] = torch.minimum(least[rows], gap)
        if self.k < 2 * at:
            return torch.zeros_like(gap, dtype=torch.bool)
        self._mark = (self.k, least, torch.full_like(least, torch.inf))
        return (residual <= 64 * eps(residual)) & (least > 0.5 * before)[rows]

    def note(self, rows: Tensor, fresh: Tensor, look: Look, contraction: Tensor | None) -> None:
        """Write what is known of the samples `rows[fresh]` of the batch."""
        certificate, rows = self.run.certificate, rows[fresh]
        if look.residual is not None:
            certificate.residual[rows] = look.residual[fresh]  # type: ignore[index]
        if certificate.gap is not None and look.gap is not None:
            certificate.gap[rows] = look.gap[fresh]
        certificate.iterations[rows] = self.k + self._before[rows]  # type: ignore[index]
        certificate.converged[rows] = look.finished[fresh]  # type: ignore[index]
        if contraction is not None:
            certificate.contraction[rows] = contraction[fresh]  # type: ignore[index]


class Free(_Loop):
    """Nothing recorded. Finished samples leave the batch; where the problem cannot be indexed they
    stay in it, their answers kept.
    """

    def loop(self) -> Z:
        run, fixpoint, z = self.run, self.fixpoint, self.z
        at_once = isinstance(fixpoint.solver, External) and len(z[0]) > 0
        if at_once:
            z, self._before = fixpoint.solver.solve(fixpoint.problem, z, run)  # type: ignore[attr-defined]
        z = tuple(part.clone() for part in z)  # to be overwritten
        out = tuple(torch.empty_like(part) for part in z)
        rows = torch.arange(len(z[0]), device=z[0].device)  # which samples of the batch are in z
        alive = torch.ones_like(rows, dtype=torch.bool)  # those of z that are not finished
        state = run.acceleration.start(fixpoint, z)
        # in float32 rounding stops the first-order method no sooner than Newton
        by_newton = fixpoint.solver.newton
        polishes = run.tol <= 1e-6 and z[0].dtype == torch.float64 and not by_newton
        polish_at = 50 if run.settle else 400
        while len(rows):
            steps, at_once = 0 if at_once else self.steps(), False
            z, state = run.acceleration.advance(fixpoint, z, state, steps)
            self.k += steps
            if polishes and self.k >= polish_at:
                polish_at = 2 * self.k
                look = self.look(fixpoint, z, rows)
                look, z, state = self._polish(fixpoint, look, z, state, rows)
            elif run.acceleration.feasible and not run.settle and not by_newton:
                look = self.glance(fixpoint, z, rows)
            else:
                look = self.look(fixpoint, z, rows)
                if isinstance(run.acceleration, Plain):  # the look was a step
                    self.k, z = min(self.k + 1, run.max_iter), look.z
            leaving = look.finished | self.ended
            if look.residual is not None:
                leaving = leaving | ~look.residual.isfinite()
            contraction = None
            if run.settle and bool(leaving.any()) and not by_newton:
                contraction = self._contraction(fixpoint, look)
            self.note(rows, alive, look, contraction)
            fresh = alive & leaving
            if int(fresh.sum()) == len(out[0]):
                return look.z
            if bool(fresh.any()):
                for whole, part in zip(out, look.z, strict=True):
                    whole[rows[fresh]] = part[fresh]
            alive = alive & ~leaving
            if not bool(alive.any()):
                break
            if bool(leaving.any()):
                keep = alive.nonzero()[:, 0]
                smaller = fixpoint.take(keep, z)
                if smaller is not None:
                    fixpoint, rows, alive = smaller, rows[keep], alive[keep]
                    z, state = tuple(part[keep] for part in z), run.acceleration.take(state, keep)
        return out

    def _polish(
        self, fixpoint: Fixpoint, look: Look, z: Z, state: State, rows: Tensor
    ) -> tuple[Look, Z, State]:
        """Newton steps for the samples that are near."""
        near = ~look.finished if look.gap is None else ~look.finished & ~(look.gap > 1e-3)
        if not bool(near.any()):
            return look, z, state
        assert look.residual is not None
        trial, residual = polish(fixpoint, look.z, self.run.tol / 10, max(self.k, DENSE))
        better = near & (residual < look.residual)
        if not bool(better.any()):
            return look, z, state
        t = where(better, trial, look.z)
        fresh = self.judge(fixpoint, t, torch.where(better, residual, look.residual), rows)
        look = replace(fresh, finished=fresh.finished | look.finished)
        state = merge(better, self.run.acceleration.start(fixpoint, t), state)
        return look, where(better, t, z), state

    @staticmethod
    def _contraction(fixpoint: Fixpoint, look: Look) -> Tensor:
        """|T(T(z)) - T(z)| / |T(z) - z|; nan where it is rounding, or 1 and more: no rate then."""
        once = fixpoint.T(look.z)
        change, again = relative_change(look.z, once), relative_change(once, fixpoint.T(once))
        measured = (change > 1e3 * eps(change)) & (again < change)
        return torch.where(measured, again / change, torch.nan)


class Recorded(_Loop):
    """Every step on the tape; finished samples are frozen by torch.where."""

    def loop(self, segment: int | None) -> Z:
        run, fixpoint, z = self.run, self.fixpoint, self.z
        rows = torch.arange(len(z[0]), device=z[0].device)
        alive = torch.ones_like(rows, dtype=torch.bool)
        state = run.acceleration.start(fixpoint, z)
        while len(rows):
            new, state = self._advance(z, state, self.steps(), segment)
            with constant():
                look = self.look(fixpoint, new, rows)
            assert look.residual is not None
            z = new if bool(alive.all()) else where(alive, new, z)
            self.note(rows, alive, look, None)
            alive = alive & ~look.finished & look.residual.isfinite()
            if self.ended or not bool(alive.any()):
                break
        return fixpoint.T(z)

    def _advance(self, z: Z, state: State, steps: int, segment: int | None) -> tuple[Z, State]:
        self.k += steps
        while steps:
            n = min(segment or steps, steps)
            z, state = stretch(
                lambda z, s, n=n: self.run.acceleration.advance(self.fixpoint, z, s, n),
                (z, state),
                bool(segment),
            )
            steps -= n
        return z, state


def _named(solver: Solver, acceleration: Acceleration) -> str:
    name = type(solver).__name__
    return name if isinstance(solver, External) else f"{name} with {type(acceleration).__name__}"
