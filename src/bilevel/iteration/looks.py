"""Looks at a run: when, what they tell, and what is written down of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, reduce
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._broadcast import eps, expand, norm_event
from .._tangents import constant
from ..acceleration.base import Acceleration, Plain, where
from ..differentiation.certificate import Certificate
from ..fixpoint import Fixpoint
from ..problem import relative_change
from ..solvers.base import Solver, Z
from ..solvers.external import External

if TYPE_CHECKING:
    from .driver import Run

_NEWTON = 200  # steps that a method of quadratic convergence may take
# what a loop writes into the certificate, and what stands there until a sample is done
_BLANK = {
    "residual": torch.inf,
    "gap": torch.inf,
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
    gap: Tensor | None  # (B,); None: there is none, or it was not needed
    finished: Tensor  # (B,) bool

    def take(self, index: Tensor) -> Look:
        z, *numbers = self.z, self.residual, self.gap, self.finished
        taken = (None if part is None else part[index] for part in numbers)
        return Look(tuple(part[index] for part in z), *taken)  # type: ignore[arg-type]


class Looking:
    """What both loops share: looking, and writing down the certificate's forward part."""

    def __init__(self, run: Run, fixpoint: Fixpoint, z: Z) -> None:
        self.run, self.fixpoint, self.z, self.k = run, fixpoint, z, 0
        self.certificate = run.certificate
        self._before: Tensor | None = None  # iterations of an external solver, (B,)
        self._unmeasured = False  # whether a sample has ended whose residual nobody knows
        self.certificate.solver = _named(fixpoint.solver, run.acceleration)
        for name in (*_BLANK, "contraction"):
            setattr(self.certificate, name, None)
        inf = z[0].new_full((len(z[0]),), torch.inf)
        self._mark = (50, inf, inf.clone())  # a number of steps, the least gaps before and since
        # when a gap is due, and the steps and the gap at the last look; the first that is due
        self._pace: np.ndarray | None = None  # (3, B)
        self._soonest = 0.0
        if not len(z[0]):
            self.note(ALL, Look(z, inf, inf if fixpoint.problem.has_gap else None, inf > 0))

    @cached_property
    def _energy(self) -> Tensor:  # (B,)
        return self._little(self.z)

    def _little(self, start: Z) -> Tensor:  # -> (B,)
        """An energy that falls to 0 has no relative gap: below this part of the first, absolute."""
        with constant():
            first = self.fixpoint.value(start)
        return torch.where(first.isfinite(), 1e-6 * first.abs(), 0.0)

    @cached_property
    def _size(self) -> Tensor:  # (B,)
        """And so for the changes of a solution that is 0."""
        return 1e-6 * reduce(torch.maximum, [norm_event(part.detach()) for part in self.z])

    @property
    def ended(self) -> bool:
        newton = self.fixpoint.solver.newton and self.k >= _NEWTON  # more would not help
        before = 0 if self._before is None else int(self._before.max())
        return newton or self.k + before >= self.run.max_iter or self.run.out_of_time()

    def steps(self) -> int:
        """Until the next look: the stride at first, mostly 10, then a sixtieth of it for each step
        made, 100 at most; where gaps are looked at, until one is due."""
        solver, left = self.fixpoint.solver, self.run.max_iter - self.k
        if isinstance(self.run.acceleration, Plain) and (solver.newton or solver.stride == 1):
            return 0  # each look is a step
        if self._pace is None:
            return min(max(solver.stride, min(self.k * solver.stride // 60, 100)), left)
        k, mark = _after(self.k, solver.stride), self._next_mark
        while k < min(self._soonest, mark):
            k = _after(k, solver.stride)
        return min(min(k, mark) - self.k, left)

    def look(self, fixpoint: Fixpoint, z: Z, rows: Rows = ALL) -> Look:
        t = fixpoint.T(z)
        if z is self.z:
            self._fastest = _length_of_step(fixpoint, z, t)
        return self.judge(fixpoint, t, fixpoint.change(z, t, self._size[rows]), rows)

    def glance(self, fixpoint: Fixpoint, z: Z, rows: Rows) -> Look:
        """A look at the gap alone, for iterates that are an answer as they stand: a step is made
        only at the end, and for z that are broken or stuck. Late in float32 it adds noise to them.
        """
        gap = self.gap(fixpoint, z, rows)
        assert gap is not None
        at_mark, tol = self.k >= self._next_mark, self.run.tol
        # in NumPy: many small operations, whose code is cold by now
        found = gap.numpy(force=True)
        index = rows.numpy(force=True) if isinstance(rows, Tensor) else rows
        turn = self._turn(found.astype(float), index, at_mark or self.ended)
        small, odd = turn & (found <= tol), ~np.isfinite(found) | self.ended
        done = torch.from_numpy(small).to(gap.device)
        if at_mark:
            odd |= self._stuck(gap, rows).numpy(force=True)  # type: ignore[union-attr]
        near = turn & ~small & odd  # so no sample ends sooner in the company of another
        if not near.any():
            self._pass_mark()
            self._unmeasured |= bool(small.any())
            return Look(z, None, gap, done)
        look, closer = self.look(fixpoint, z, rows), torch.from_numpy(near).to(gap.device)
        assert look.gap is not None
        kept = ~closer | (gap < look.gap)
        if bool(kept.any()):  # mostly of all samples, or of none: a copy saved
            look = replace(look, z=z if bool(kept.all()) else where(kept, z, look.z))
        gap = torch.where(kept, gap, look.gap)  # type: ignore[arg-type]
        return replace(look, gap=gap, finished=done | closer & look.finished)

    def _turn(self, gap: np.ndarray, rows: np.ndarray | slice, last: bool) -> np.ndarray:  # (B,)
        """Whose gaps are due: expected at tol, if they fall as k^-p, and at the latest after 3.5
        times the steps. p: 1.3 times that between the last two looks at them, since they fall ever
        faster; at least 2, and 3 at first, as total variation's from 1e-2 to 1e-6. So each sample
        ends alone where it does in company."""
        if self._pace is None:
            self._pace = np.zeros((3, len(self.z[0])))
        due, steps, before = pace = self._pace[:, rows]
        turn = (due <= self.k) | last
        with np.errstate(all="ignore"):
            p = 1.3 * np.log(before / gap) / np.log(self.k / steps)
            p = np.where(steps > 0, np.fmax(p, 2.0), 3.0)
            further = self.k * np.fmin((gap / max(self.run.tol, 1e-12)) ** (1 / p), 3.5)
        further = np.where(gap > self.run.tol, further, np.inf)
        for part, seen in zip(pace, (further, np.full_like(gap, self.k), gap), strict=True):
            part[turn] = seen[turn]
        self._pace[:, rows] = pace
        self._soonest = float(due.min())
        return turn

    def gap(self, fixpoint: Fixpoint, z: Z, rows: Rows) -> Tensor | None:  # -> (B,)
        if not fixpoint.problem.has_gap:
            return None
        # an answer found at once is first judged without: a floor would only lessen its gap
        first = self._before is not None and not self.k
        return fixpoint.gap(z, 0.0 if first else self._energy[rows])

    def judge(self, fixpoint: Fixpoint, t: Z, residual: Tensor, rows: Rows) -> Look:
        tol = max(self.run.tol, 4 * eps(residual))
        settled, at_once = residual <= tol, isinstance(fixpoint.solver, External)
        if not at_once:  # else x did not come from the start by T
            size = norm_event(fixpoint.primal(t))
            self._fastest[rows] = torch.maximum(self._fastest[rows], residual * size)
            if bool(settled.any()):
                settled = settled & ~self._runs_away(size, residual, rows)
        both = self.run.settle or at_once or fixpoint.solver.newton  # a residual that is the error
        last = self.ended or self.k >= self._next_mark
        if both and not last and not bool((settled | ~(residual < torch.inf)).any()):
            return Look(t, residual, None, settled)  # a gap would change nothing
        gap = self.gap(fixpoint, t, rows)
        if gap is None:
            return Look(t, residual, gap, settled)
        small = gap <= tol
        finished = small & settled if both else small
        finished = torch.where(gap.isfinite(), finished, settled)
        stuck = self._stuck(gap, rows)
        self._pass_mark()
        if stuck is not None and bool(stuck.any()):  # z is at rounding level, or the gap is
            last = fixpoint.gap(t, self._usual_energy[rows])
            assert last is not None
            rounding = 64 * eps(residual)
            gap = torch.where(stuck & (last <= rounding), last, gap)
            finished = finished | stuck & ((gap <= rounding) | (residual <= rounding))
        return Look(t, residual, gap, finished)

    def _runs_away(self, size: Tensor, residual: Tensor, rows: Rows) -> Tensor:  # -> (B,) bool
        """Whether x, of this size, is only far out, and moves as fast as ever: |x - T(x)| / |x| is
        small there for an energy without a minimiser, too."""
        begin, fastest = norm_event(self.fixpoint.primal(self.z))[rows], self._fastest[rows]
        far = size > 1e3 * torch.maximum(begin, fastest)
        moves = (residual + 4 * eps(size)) * size  # far enough out, rounding hides the move
        return far & (moves > 0.5 * fastest)

    @cached_property
    def _fastest(self) -> Tensor:  # (B,)
        """The greatest |T(x) - x| of any look; the first, at the start, is made here where no look
        was."""
        return _length_of_step(self.fixpoint, self.z, self.fixpoint.T(self.z))

    def _stuck(self, gap: Tensor, rows: Rows) -> Tensor | None:  # -> (B,) bool; None: not yet
        """Whether twice as many steps have not lessened the gap: a weight far from the scale of the
        data, or an energy that is 0 from the start, leaves a gap that the dtype cannot close."""
        _, before, least = self._mark
        least[rows] = torch.minimum(least[rows], gap)
        return (least > 0.5 * before)[rows] if self.k >= self._next_mark else None

    @property
    def _next_mark(self) -> int:  # 100, 200, 400, ...: all are looked at there
        return 2 * self._mark[0]

    def _pass_mark(self) -> None:
        if self.k >= self._next_mark:
            _, _, least = self._mark
            self._mark = (self.k, least, torch.full_like(least, torch.inf))

    @cached_property
    def _usual_energy(self) -> Tensor:  # (B,)
        """What a gap that only rounding keeps open is relative to: the energy of x = 0, of least
        squares the data's; where that is 0 or inf, the composed terms at an x without any
        structure, as large as the start."""
        problem, x = self.fixpoint.problem, self.fixpoint.primal(self.z)
        with constant():
            value = problem.value(torch.zeros_like(x)).abs()
            wave = torch.arange(x[0].numel(), device=x.device).to(value.dtype).cos()
            size = norm_event(x) / x[0].numel() ** 0.5
            rough = (expand(size, x) * wave.reshape(x[0].shape)).to(x.dtype)
            values = [h.outer.value(h.operator(rough)).abs() for h in problem.h]
        usual = reduce(Tensor.add, values, torch.zeros_like(value))
        value = torch.where(value.isfinite() & (value > 0), value, usual)
        return torch.where(value.isfinite(), value, 0.0)

    def leaving(self, look: Look) -> Tensor:  # -> (B,) bool
        """Which samples go no further: finished, broken, or out of steps or time."""
        if self.ended:
            return torch.ones_like(look.finished)
        if look.residual is None:
            return look.finished
        return look.finished | ~(look.residual < torch.inf)

    def note(self, rows: Rows, look: Look) -> None:
        """Write what is known of the samples `rows` of the batch."""
        steps = torch.full_like(look.finished, self.k, dtype=torch.long)
        if self._before is not None:
            steps += self._before[rows]
        found = {
            "residual": look.residual,
            "gap": look.gap,
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


def look_later(run: Run, fixpoint: Fixpoint, z0: Z, z: Z, *names: str) -> None:
    """Let the certificate tell what one T tells of an answer z, once these fields are read."""
    apart = replace(run, certificate=Certificate())  # a certificate must not hold itself

    def fill(certificate: Certificate) -> None:
        with constant():
            look = Looking(apart, fixpoint, z0).look(fixpoint, z)
        for name in names:
            setattr(certificate, name, getattr(look, name))

    for name in names:
        setattr(run.certificate, name, fill)


def contraction_later(certificate: Certificate, fixpoint: Fixpoint, z: Z) -> None:
    """Let it tell |T(T(z)) - T(z)| / |T(z) - z| of an answer z, once that is read; nan where it is
    rounding, or 1 and more: no rate then."""

    def fill(certificate: Certificate) -> None:
        with constant():
            once = fixpoint.T(z)
            change, again = fixpoint.change(z, once), fixpoint.change(once, fixpoint.T(once))
        measured = (change > 1e3 * eps(change)) & (again < change)
        certificate.contraction = torch.where(measured, again / change, torch.nan)

    certificate.contraction = fill


def _after(k: int, stride: int) -> int:
    """The next number of steps at which a gap may be looked at: a fifth of a stride on, later a
    forty-eighth."""
    return k + max(stride // 5, k // 48, 1)


def _length_of_step(fixpoint: Fixpoint, z: Z, t: Z) -> Tensor:  # -> (B,)
    return relative_change(z, t) * norm_event(fixpoint.primal(t))


def _named(solver: Solver, acceleration: Acceleration) -> str:
    name = type(solver).__name__
    return name if isinstance(solver, External) else f"{name} with {type(acceleration).__name__}"
