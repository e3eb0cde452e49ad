"""The one loop, recorded or not: when to stop, which samples leave, when Newton may finish."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._one_thread import copied
from .._tangents import constant
from ..acceleration.base import Plain, State, merge, where
from ..differentiation.active import declared
from ..differentiation.linearisation import DENSE
from ..differentiation.unrolled import stretch
from ..fixpoint import Fixpoint
from ..solvers.base import Z
from ..solvers.external import External
from .identification import Watch
from .looks import ALL, Look, Looking, Rows, contraction_later, look_later
from .polish import by_points, polish, steps_worth

if TYPE_CHECKING:
    from .driver import Run


class Free(Looking):
    """Nothing recorded. Finished samples leave the batch; where the problem cannot be indexed they
    stay in it, their answers kept.
    """

    def __init__(self, run: Run, fixpoint: Fixpoint, z: Z, identified: int | None) -> None:
        super().__init__(run, fixpoint, z)
        self._steady = identified
        self._watch = Watch.of(z) if identified is not None or self._watched() else None

    def _watched(self) -> bool:
        """Whether a derivative is asked for, by steps, where an active set can change."""
        problem, solver = self.fixpoint.problem, self.fixpoint.solver
        kinks = problem.g is not None or bool(problem.h)
        return self.run.settle and kinks and declared(problem) and not isinstance(solver, External)

    def loop(self) -> Z:
        run, fixpoint, z, batch = self.run, self.fixpoint, self.z, len(self.z[0])
        at_once = isinstance(fixpoint.solver, External) and batch > 0
        if at_once:
            z, self._before = run.answer(fixpoint, z)
        if fixpoint.kernel(z) is not None:
            z = tuple(copied(part) for part in z)  # to be overwritten
        out: Z = ()  # the answers, once some samples are done before others
        rows: Rows = ALL  # which samples of the batch are in z
        alive: Tensor | None = None  # those of z that are not finished; None: all
        left = batch  # how many they are
        state = run.acceleration.start(fixpoint, z)
        # in float32 rounding stops the first-order method no sooner than Newton
        by_newton = fixpoint.solver.newton
        by_gap = fixpoint.problem.has_gap and not run.settle and not by_newton
        by_gap = by_gap and run.acceleration.feasible
        if by_gap and batch and not at_once:
            self._energy = self._little(z)  # before z is overwritten: it is at hand
        polishes = run.tol <= 1e-6 and z[0].dtype == torch.float64 and not by_newton
        polishes = polishes and self._steady is None  # a jump to the answer is no step to record
        polish_at = 50 if run.settle else 400
        if polishes:  # half as late where the derivative takes the factor, too
            polish_at = min(polish_at, steps_worth(fixpoint, z) / (2 if run.settle else 1))
        while left:
            steps, at_once = 0 if at_once else self.steps(), False
            z, state = run.acceleration.advance(fixpoint, z, state, steps)
            self.k += steps
            if polishes and self.k >= polish_at:
                polish_at = 2 * self.k
                look = self.look(fixpoint, z, rows)
                look, z, state = self._polish(fixpoint, look, z, state, rows)
            elif by_gap:
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
            if count == batch:
                self.note(ALL, look)
                return self._answers(look.z)
            index = fresh.nonzero()[:, 0]
            there = _at(rows, index)
            self.note(there, look.take(index))
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
        if self._unmeasured:
            look_later(self.run, self.fixpoint, self.z, out, "residual")
        if self.run.settle and self.k and not self.fixpoint.solver.newton:
            contraction_later(self.certificate, self.fixpoint, out)
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
        """Newton steps for the samples that are near; for those still open, where this solver has
        one, its Euclidean method."""
        left = ~look.finished
        gap = self.gap(fixpoint, look.z, rows) if look.gap is None else look.gap
        near = left if gap is None else left & ~(gap > 1e-3)
        tol, steps = self.run.tol / 10, max(self.k, DENSE)
        assert look.residual is not None
        trial, residual = look.z, look.residual
        if bool(near.any()):
            found = polish(fixpoint, look.z, tol, steps)
            trial, residual = _nearer(near, found, (trial, residual))
        if fixpoint.solver.euclidean() and bool((left & (residual > self.run.tol)).any()):
            found = by_points(replace(self.run, tol=tol), fixpoint, look.z, steps)
            trial, residual = _nearer(left, found, (trial, residual))
        better = residual < look.residual
        if not bool(better.any()):
            return look, z, state
        fresh = self.judge(fixpoint, trial, residual, rows)
        look = replace(fresh, finished=fresh.finished | look.finished)
        state = merge(better, self.run.acceleration.start(fixpoint, trial), state)
        return look, where(better, trial, z), state


def _nearer(which: Tensor, found: tuple[Z, Tensor], known: tuple[Z, Tensor]) -> tuple[Z, Tensor]:
    """(z, residual): those found where they have the smaller residual, of the samples `which`."""
    better = which & (found[1] < known[1])
    return where(better, found[0], known[0]), torch.where(better, found[1], known[1])


class Recorded(Looking):
    """Every step on the tape; finished samples are frozen by torch.where."""

    def loop(self, segment: int | None) -> Z:
        run, fixpoint, z = self.run, self.fixpoint, self.z
        alive = torch.ones(len(z[0]), dtype=torch.bool, device=z[0].device)
        state = run.acceleration.start(fixpoint, z)
        while len(alive):
            new, state = self._advance(z, state, self.steps() or 1, segment)
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
