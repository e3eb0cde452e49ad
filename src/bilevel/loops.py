"""The one loop, recorded or not: when to look, when to stop, which samples leave, when Newton may
finish."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._broadcast import eps, norm_event
from ._tangents import constant
from .acceleration.base import Acceleration, Plain, State, merge, where
from .differentiation.active import declared
from .differentiation.system import DENSE
from .differentiation.unrolled import stretch
from .fixpoint import Fixpoint
from .identification import Watch
from .polish import polish
from .problem import relative_change
from .solvers.base import Solver, Z
from .solvers.external import External

if TYPE_CHECKING:
    from .driver import Run

_NEWTON = 200  # steps that a method of quadratic convergence may take
# what a loop writes into the certificate, and what stands there until a sample is done
_BLANK = {
    "residual": torch.inf,
    "gap": torch.inf,
    "contraction": torch.nan,
    "iterations": 0,
    "converged": False,
}


ALL = slice(None)
Rows = Tensor | slice  # samples of the batch, in increasing order


@dataclass(frozen=True, eq=False)
class Look:
    """What one plain T step, or the gap alone, tells about a batch."""

    z: Z  # T(the iterate), or the iterate itself where its gap is smaller
    residual: Tensor | None  # (B,); None: no step was made
    gap: Tensor | None  # (B,)
    finished: Tensor  # (B,) bool

    def take(self, index: Tensor) -> Look:
        z, *numbers = self.z, self.residual, self.gap, self.finished
        taken = (None if part is None else part[index] for part in numbers)
        return Look(tuple(part[index] for part in z), *taken)  # type: ignore[arg-type]


class _Loop:
    """What both loops share: looking, and writing down the certificate's forward part."""

    def __init__(self, run: Run, fixpoint: Fixpoint, z: Z) -> None:
        self.run, self.fixpoint, self.z, self.k = run, fixpoint, z, 0
        self.certificate = run.certificate
        self._before: Tensor | None = None  # iterations of an external solver, (B,)
        self.certificate.solver = _named(fixpoint.solver, run.acceleration)
        for name in _BLANK:
            setattr(self.certificate, name, None)
        inf = z[0].new_full((len(z[0]),), torch.inf)
        self._mark = (50, inf, inf.clone())  # a number of steps, the least gaps before and since
        if not len(z[0]):
            self.note(ALL, Look(z, inf, inf if fixpoint.problem.has_gap else None, inf > 0))

    @cached_property
    def _energy(self) -> Tensor:  # (B,)
        """An energy that falls to 0 has no relative gap: below this part of the first, absolute."""
        with constant():
            first = self.fixpoint.value(self.z)
        return torch.where(first.isfinite(), 1e-6 * first.abs(), 0.0)

    @cached_property
    def _size(self) -> Tensor:  # (B,)
        """And so for the changes of a solution that is 0."""
        return 1e-6 * reduce(torch.maximum, [norm_event(part.detach()) for part in self.z])

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

    def look(self, fixpoint: Fixpoint, z: Z, rows: Rows = ALL) -> Look:
        t = fixpoint.T(z)
        return self.judge(fixpoint, t, fixpoint.change(z, t, self._size[rows]), rows)

    def glance(self, fixpoint: Fixpoint, z: Z, rows: Rows) -> Look:
        """A look that makes its step only where the gap at z says that a sample may be done; for
        iterates that are an answer as they stand. Late in float32 a plain step adds noise to them.
        """
        gap = self.gap(fixpoint, z, rows)
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

    def gap(self, fixpoint: Fixpoint, z: Z, rows: Rows) -> Tensor | None:  # -> (B,)
        return fixpoint.gap(z, self._energy[rows]) if fixpoint.problem.has_gap else None

    def judge(self, fixpoint: Fixpoint, t: Z, residual: Tensor, rows: Rows) -> Look:
        gap = self.gap(fixpoint, t, rows)
        tol = max(self.run.tol, 4 * eps(residual))
        settled, at_once = residual <= tol, isinstance(fixpoint.solver, External)
        if not at_once and bool(settled.any()):  # else x did not come from the start by T
            settled = settled & ~self._runs_away(fixpoint.primal(t), residual, rows)
        if gap is None:
            return Look(t, residual, gap, settled)
        small = gap <= tol
        both = self.run.settle or at_once or fixpoint.solver.newton  # a residual that is the error
        finished = small & settled if both else small
        finished = torch.where(gap.isfinite(), finished, settled)
        return Look(t, residual, gap, finished | self._stalled(gap, residual, rows))

    def _runs_away(self, x: Tensor, residual: Tensor, rows: Rows) -> Tensor:  # -> (B,) bool
        """Whether x is only far out, and moves as fast as at the start: |x - T(x)| / |x| is small
        there for an energy without a minimiser, too."""
        size = norm_event(x)
        far = size > 1e3 * norm_event(self.fixpoint.primal(self.z))[rows]
        if not bool(far.any()):
            return far
        t = self.fixpoint.T(self.z)
        first = (relative_change(self.z, t) * norm_event(self.fixpoint.primal(t)))[rows]
        moves = (residual + 4 * eps(x)) * size  # far enough out, rounding hides the move
        return far & (size > 1e3 * first) & (moves > 0.5 * first)

    def _stalled(self, gap: Tensor, residual: Tensor, rows: Rows) -> Tensor:  # -> (B,) bool
        """Whether z is at rounding level and twice as many steps have not lessened the gap: a
        weight far from the scale of the data leaves a gap that the dtype cannot close."""
        at, before, least = self._mark
        least[rows] = torch.minimum(least[rows], gap)
        if self.k < 2 * at:
            return torch.zeros_like(gap, dtype=torch.bool)
        self._mark = (self.k, least, torch.full_like(least, torch.inf))
        return (residual <= 64 * eps(residual)) & (least > 0.5 * before)[rows]

    def leaving(self, look: Look) -> Tensor:  # -> (B,) bool
        """Which samples go no further: finished, broken, or out of steps or time."""
        if self.ended:
            return torch.ones_like(look.finished)
        if look.residual is None:
            return look.finished
        return look.finished | ~(look.residual < torch.inf)

    def note(self, rows: Rows, look: Look, contraction: Tensor | None = None) -> None:
        """Write what is known of the samples `rows` of the batch."""
        steps = torch.full_like(look.finished, self.k, dtype=torch.long)
        if self._before is not None:
            steps += self._before[rows]
        found = {
            "residual": look.residual,
            "gap": look.gap,
            "contraction": contraction,
            "iterations": steps,
            "converged": look.finished,
        }
        for name, values in found.items():
            if values is None:
                continue
            if rows is ALL:
                setattr(self.certificate, name, values)
                continue
            if getattr(self.certificate, name) is None:
                setattr(self.certificate, name, values.new_full((len(self.z[0]),), _BLANK[name]))
            getattr(self.certificate, name)[rows] = values


class Free(_Loop):
    """Nothing recorded. Finished samples leave the batch; where the problem cannot be indexed they
    stay in it, their answers kept.
    """

    def __init__(self, run: Run, fixpoint: Fixpoint, z: Z, identified: int | None) -> None:
        super().__init__(run, fixpoint, z)
        self._steady = identified
        steps = run.settle and not isinstance(fixpoint.solver, External)  # to be watched
        watched = identified is not None or (steps and declared(fixpoint.problem))
        self._watch = Watch.of(z) if watched else None

    def loop(self) -> Z:
        run, fixpoint, z, batch = self.run, self.fixpoint, self.z, len(self.z[0])
        at_once = isinstance(fixpoint.solver, External) and batch > 0
        if at_once:
            z, self._before = fixpoint.solver.solve(fixpoint.problem, z, run)  # type: ignore[attr-defined]
        z = tuple(part.clone() for part in z)  # to be overwritten
        out: Z = ()  # the answers, once some samples are done before others
        rows: Rows = ALL  # which samples of the batch are in z
        alive: Tensor | None = None  # those of z that are not finished; None: all
        left = batch  # how many they are
        state = run.acceleration.start(fixpoint, z)
        # in float32 rounding stops the first-order method no sooner than Newton
        by_newton = fixpoint.solver.newton
        polishes = run.tol <= 1e-6 and z[0].dtype == torch.float64 and not by_newton
        polish_at = 50 if run.settle else 400
        while left:
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
            leaving = self.leaving(look) | self._identified(fixpoint, look, rows)
            fresh = leaving if alive is None else alive & leaving
            count = int(fresh.sum())
            if not count:
                continue
            left -= count
            contraction = None
            if run.settle and self.k and not by_newton:
                contraction = self._contraction(fixpoint, look)
            if count == batch:
                self.note(ALL, look, contraction)
                return self._answers(look.z)
            index = fresh.nonzero()[:, 0]
            there = _at(rows, index)
            some = None if contraction is None else contraction[index]
            self.note(there, look.take(index), some)
            out = out or tuple(part.new_empty((batch, *part.shape[1:])) for part in z)
            for whole, part in zip(out, look.z, strict=True):
                whole[there] = part[index]
            alive = ~fresh if alive is None else alive & ~fresh
            keep = alive.nonzero()[:, 0]
            smaller = fixpoint.take(keep, z) if left else None
            if smaller is not None:
                fixpoint, rows, alive = smaller, _at(rows, keep), None
                z, state = tuple(part[keep] for part in z), run.acceleration.take(state, keep)
        return self._answers(out or z)

    def _answers(self, out: Z) -> Z:
        """What the run returns: its answers, or the first iterates with their active sets."""
        if self._watch is None:
            return out
        self.certificate.identified = self._watch.steady
        self.certificate.margin = self._watch.margin
        if self._steady is None:
            return out
        self.certificate.residual = self._watch.residual
        return self._watch.first

    def _identified(self, fixpoint: Fixpoint, look: Look, rows: Rows) -> Tensor | bool:
        """Whether the active set has kept long enough to leave; seen at every look then, else at
        ever rarer ones."""
        watch = self._watch
        if watch is None:
            return False
        if self._steady is not None or self.k >= watch.due or bool(look.finished.any()):
            watch.look(fixpoint, look, rows, self.k)
        return False if self._steady is None else watch.steady[rows] >= self._steady

    def _polish(
        self, fixpoint: Fixpoint, look: Look, z: Z, state: State, rows: Rows
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
        change, again = fixpoint.change(look.z, once), fixpoint.change(once, fixpoint.T(once))
        measured = (change > 1e3 * eps(change)) & (again < change)
        return torch.where(measured, again / change, torch.nan)


class Recorded(_Loop):
    """Every step on the tape; finished samples are frozen by torch.where."""

    def loop(self, segment: int | None) -> Z:
        run, fixpoint, z = self.run, self.fixpoint, self.z
        alive = torch.ones(len(z[0]), dtype=torch.bool, device=z[0].device)
        state = run.acceleration.start(fixpoint, z)
        while len(alive):
            new, state = self._advance(z, state, self.steps(), segment)
            with constant():
                look = self.look(fixpoint, new)
            z = new if bool(alive.all()) else where(alive, new, z)
            fresh = alive & self.leaving(look)
            index = fresh.nonzero()[:, 0]
            self.note(index, look.take(index))
            alive = alive & ~fresh
            if not bool(alive.any()):
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


def _at(rows: Rows, index: Tensor) -> Tensor:
    return index if isinstance(rows, slice) else rows[index]


def _named(solver: Solver, acceleration: Acceleration) -> str:
    name = type(solver).__name__
    return name if isinstance(solver, External) else f"{name} with {type(acceleration).__name__}"
