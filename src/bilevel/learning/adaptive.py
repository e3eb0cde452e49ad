"""AdaptiveInexact: descent on a loss whose lower level is solved as accurately as a step needs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bilevel.accuracy import Accuracy, accuracy
from bilevel.differentiation.certificate import Certificate
from bilevel.learning.descent import Closure, Descent

_ARMIJO = 1e-4  # the part of the predicted decrease that a step must bring
_CLEAR = 10  # a decrease that is so many times what is in doubt could be seen less accurately
_WORTH = 5e-3  # of the loss: t |g|^2 to solve tighter for; half of that, 0.01 dB, is its decrease
_CALM = 0.25  # of the |gradient|^2: where losses cannot be told apart, so much less is a step
_FURTHER = 10  # than the first step, no parameter moves in a later one


@dataclass(frozen=True, eq=False)
class _Point:
    """The loss at one θ, its lower level solved to tol: it lies in [loss - doubt, loss + doubt]."""

    theta: Tensor
    tol: float
    loss: float
    doubt: float
    gradient: Tensor

    @property
    def slope(self) -> float:
        return float(self.gradient.square().sum())


@dataclass(frozen=True, eq=False)
class _Trial:
    """A step from here to there = here - t g: what the losses, and where these are in doubt the
    slopes, say of it."""

    here: _Point
    there: _Point
    t: float
    blur: float  # how uncertain `fall` is; infinite: slopes do not count

    @property
    def lacking(self) -> float:  # 0 or less: enough decrease
        return self.there.loss - self.here.loss + _ARMIJO * self.t * self.here.slope

    @property
    def doubt(self) -> float:
        return self.here.doubt + self.there.doubt

    @property
    def fall(self) -> float:
        """<g + g', g> / <g, g> = 2 (loss - loss there) / (t <g, g>) + O(t^2); g' is that there."""
        return 1 + float(self.here.gradient @ self.there.gradient) / self.here.slope

    @property
    def lowers(self) -> bool:  # the loss, surely
        by_slopes = self.lacking <= self.doubt and self.fall - self.blur >= 2 * _ARMIJO
        return self.lacking + self.doubt <= 0 or by_slopes

    @property
    def shorter(self) -> float:
        """A better t: the minimiser of the parabola through both losses and the slope, between t/10
        and t/2, or through both slopes; t itself where nothing says that it is too long."""
        if self.lacking > self.doubt:
            bend = self.there.loss - self.here.loss + self.t * self.here.slope
            return min(max(self.t**2 * self.here.slope / (2 * bend), 0.1 * self.t), 0.5 * self.t)
        return self.t / (2 - self.fall) if self.fall < 0 and self.blur < 1 else self.t

    @property
    def following(self) -> float:
        """<s, s> / <s, y> with s = -t g and y the change of g, between t/10 and 4 t."""
        turn = 2 - self.fall
        return min(max(self.t / turn, 0.1 * self.t), 4 * self.t) if turn > 0 else 4 * self.t


class AdaptiveInexact(Descent):
    """θ <- θ - t ∇loss(θ), the lower level solved to a tolerance that the method finds [1].

    A step tries t, by Barzilai and Borwein, and compares the losses with what is in doubt of them:

        surely enough decrease      accept; with a wide margin, solve 10 times looser from now on
        surely not enough           a shorter t, up to 5 times
        the doubt is larger         ask the slopes at both ends, g and g', known far better [3]:
            <g + g', g> > 0, surely     accept: to second order it is the decrease, times 2/t
            <g + g', g> < 0             a shorter t, to where the slope vanishes between
            neither                     solve 10 times tighter, take the gradient anew

    The doubt is an ESTIMATE: the adjoint w that gives the gradient also tells what the residual of
    the solution costs the loss, -<w, z - T(z)> [2]; the loss is corrected by it and taken as known
    up to that much. Adjoints are solved to sqrt(tol), the order of the error of x, and so of that
    of g. How large it is was seen where the tolerance last changed; until then slopes do not count.
    With worst_case=True they never do, and the doubt is |∂loss/∂x| times the bound
    |x - x*| <= sqrt(2 gap/μ), right to first order but, on photographs, a hundred times larger. A
    solve that names its own tol keeps it.

    The run ends (a step moves nothing) where a step would lower the loss by less than
    tolerance_change of its size, by less than 0.25 % that only a tighter solve could tell (0.01 dB
    of a squared error), or at the tightest tolerance; a last step in doubt is taken where it leaves
    a quarter of |∇loss|^2. Differs from [1], where every error is bounded and losses are compared
    at the end of a whole search.

    [1] Salehi, Mukherjee, Roberts, Ehrhardt. An adaptively inexact first-order method for bilevel
    optimization with application to hyperparameter learning. 2024.
    [2] Becker, Rannacher. An optimal control approach to a posteriori error estimation. 2001.
    [3] Hager, Zhang. A new conjugate gradient method with guaranteed descent and an efficient line
    search. SIAM J. Optim., 2005: the approximate Wolfe conditions, where rounding hides decreases.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        first_step: float = 0.5,  # the most that a parameter moves at first; later, 10 times that
        tol: float = 0.1,  # to begin with; the outcome hardly depends on it
        tightest: float = 1e-6,
        tolerance_change: float = 1e-5,
        worst_case: bool = False,
    ) -> None:
        if not 0 < first_step < float("inf"):
            raise ValueError(f"AdaptiveInexact needs first_step > 0, finite, got {first_step}.")
        if not 0 < tightest <= tol <= 0.5 or not tolerance_change >= 0:
            raise ValueError(
                "AdaptiveInexact needs 0 < tightest <= tol <= 0.5 and tolerance_change >= 0, got "
                f"{tightest = }, {tol = }, {tolerance_change = }."
            )
        options = dict(
            first_step=first_step, tol=tol, tightest=tightest,
            tolerance_change=tolerance_change, worst_case=worst_case,
        )  # fmt: skip
        super().__init__(params, options)

    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """One accepted step, or none: then no θ nearby is known to be better."""
        options, memory = self.options, self.memory
        here = self._point(closure, memory.get("tol", options["tol"]))
        first, shorter = here.loss, 0
        t = self._bounded(here, memory.get("t"))
        while (gain := self._gain(here, t)) > options["tolerance_change"] * abs(here.loss):
            # not to be solved tighter for
            last = here.tol <= options["tightest"] or gain <= _WORTH * abs(here.loss)
            blur = math.inf if last else 2 * self._off(here) / here.slope**0.5
            if here.doubt <= t * here.slope or blur < 1 or (last and not shorter):  # may be told
                self.place(here.theta - t * here.gradient)
                trial = _Trial(here, self._point(closure, here.tol), t, blur)
                if trial.lowers:
                    clear = -trial.lacking >= _CLEAR * trial.doubt
                    memory["tol"] = min(10 * here.tol, options["tol"]) if clear else here.tol
                    memory["t"] = trial.following
                    return first
                if trial.shorter < t and shorter < 5:
                    t, shorter = trial.shorter, shorter + 1
                    continue
                if last and trial.there.slope <= _CALM * here.slope:
                    here, t = trial.there, trial.following
            if last:
                break
            here, shorter = self._tighter(closure, here), 0
            t = self._bounded(here, memory.get("t"))
        self.place(here.theta)
        memory["tol"], memory["t"] = here.tol, t
        return first

    def _bounded(self, here: _Point, t: float | None) -> float:
        """t, so that no parameter moves by too much; of the first step, all that it may."""
        first = self.options["first_step"] / float(here.gradient.abs().max()) if here.slope else 0.0
        return first if t is None else min(t, _FURTHER * first)

    def _point(self, closure: Closure, tol: float) -> _Point:
        with accuracy(tol, adjoint_tol=min(0.5, tol**0.5), report=[]) as level:
            loss, gradient = self.evaluate(closure)
        error, doubt = _errors(level, self.options["worst_case"])
        return _Point(self.theta, tol, loss - error, doubt, gradient)

    def _tighter(self, closure: Closure, here: _Point) -> _Point:
        """The same θ, solved 10 times tighter: which also shows how far off the gradient was."""
        self.place(here.theta)
        there = self._point(closure, max(here.tol / 10, self.options["tightest"]))
        off = float((here.gradient - there.gradient).norm())
        self.memory["off"] = off / here.tol**0.5
        return there

    def _gain(self, here: _Point, t: float) -> float:
        """What a step would lower the loss by, to first order: t |g|^2, and t (|g|^2 + |error of
        g|^2) where the loss itself is in doubt: no run ends on a gradient that is 0 by error."""
        sure = here.doubt <= _WORTH * abs(here.loss) or here.tol <= self.options["tightest"]
        return t * (here.slope if sure or not here.slope else here.slope + self._off(here) ** 2)

    def _off(self, here: _Point) -> float:
        """ESTIMATE of |error of g|: of the order of sqrt(tol), as was seen where the tolerance last
        changed. Infinite before that, and where bounds are wanted."""
        known = "off" in self.memory and not self.options["worst_case"]
        return self.memory["off"] * here.tol**0.5 if known else math.inf


def _errors(level: Accuracy, worst_case: bool) -> tuple[float, float]:
    """(error of the loss, how uncertain it is even so)."""
    assert level.report is not None
    if level.others and not level.report:
        raise ValueError(
            "AdaptiveInexact finds the tolerance of the lower level, but every solve in the loss "
            "names a tol of its own: leave tol out of argmin, or take another optimizer."
        )
    read = [c for c in level.report if c.pull is not None]  # by the loss, with a gradient
    error = _bound if worst_case else _estimate
    pairs = [error(c) for c in read]
    return sum(e for e, _ in pairs), sum(doubt for _, doubt in pairs)


def _bound(found: Certificate) -> tuple[float, float]:
    if found.distance is None or found.pull is None:
        raise ValueError(
            "worst_case=True needs a bound of |x - x*|, so energies with a duality gap that the "
            "terms know to be strongly convex (LeastSquares without operator, say). Leave it out "
            "to have the error estimated."
        )
    return 0.0, float((found.distance * found.pull).sum())


def _estimate(found: Certificate) -> tuple[float, float]:
    if found.loss_error is None:
        raise ValueError(
            f"AdaptiveInexact reads the error of the loss from the adjoint, and {found.strategy} "
            "solves none: pass diff=FixedPoint() or Implicit() to argmin, or leave diff out."
        )
    return float(found.loss_error.sum()), float(found.loss_error.abs().sum())
