"""AdaptiveInexact: descent on a loss whose lower level is solved as accurately as a step needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from bilevel.accuracy import Accuracy, accuracy
from bilevel.differentiation.certificate import Certificate
from bilevel.learning.descent import Closure, Descent

_ARMIJO = 1e-4  # the part of the predicted decrease that a step must bring
_CLEAR = 10  # a decrease that is so many times what is in doubt could be seen less accurately
_WORTH = 1e-3  # of the loss (0.004 dB of a squared error): a decrease to solve tighter for
_CALM = 0.25  # of the |gradient|^2: where losses cannot be told apart, so much less is a step
_FURTHER = 10  # than the first step, no parameter moves in a later one


@dataclass(frozen=True, eq=False)
class _Point:
    """The loss at one θ: it lies in [loss - doubt, loss + doubt]."""

    theta: Tensor
    loss: float
    doubt: float
    gradient: Tensor

    @property
    def slope(self) -> float:
        return float(self.gradient.square().sum())


class AdaptiveInexact(Descent):
    """θ <- θ - t ∇loss(θ), the lower level solved to a tolerance that the method finds [1].

    A step tries t, by Barzilai and Borwein, and compares the losses with what is in doubt of them:

        surely enough decrease      accept; with a wide margin, solve 10 times looser from now on
        surely not enough           a shorter t, up to 5 times
        the doubt is larger         solve 10 times tighter, take the gradient anew

    The doubt is an ESTIMATE: the adjoint w that gives the gradient also tells what the residual of
    the solution costs the loss, -<w, z - T(z)> [2]; the loss is corrected by it and taken as known
    up to that much. With worst_case=True it is |∂loss/∂x| times the bound |x - x*| <=
    sqrt(2 gap/μ), right to first order but, on photographs, a hundred times larger. Adjoints are
    solved to sqrt(tol), which is the order of the error of x. A solve that names its own tol keeps
    it.

    The run ends (a step moves nothing) where a step would lower the loss by less than
    tolerance_change of its size, or at the tightest tolerance. Differs from [1], where every error
    is bounded and losses are compared at the end of a whole search.

    [1] Salehi, Mukherjee, Roberts, Ehrhardt. An adaptively inexact first-order method for bilevel
    optimization with application to hyperparameter learning. 2024.
    [2] Becker, Rannacher. An optimal control approach to a posteriori error estimation. 2001.
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
        tol = memory.setdefault("tol", options["tol"])
        here = self._point(closure, tol)
        first, shorter = here.loss, 0
        first_t = options["first_step"] / float(here.gradient.abs().max()) if here.slope else 0.0
        t = min(memory.get("t", first_t), _FURTHER * first_t)
        while t * here.slope > options["tolerance_change"] * abs(here.loss):
            self.place(here.theta - t * here.gradient)
            there = self._point(closure, tol)
            lacking = there.loss - here.loss + _ARMIJO * t * here.slope  # 0 or less: enough
            doubt = there.doubt + here.doubt
            if lacking + doubt <= 0:
                clear = -lacking >= _CLEAR * doubt
                memory["tol"] = min(10 * tol, options["tol"]) if clear else tol
                memory["t"] = _next(t, here, there)
                return first
            if lacking > doubt and shorter < 5:
                t, shorter = _shorter(t, here, there), shorter + 1
                continue
            if tol <= options["tightest"] or t * here.slope <= _WORTH * abs(here.loss):
                if there.slope <= _CALM * here.slope:
                    here, t = there, _next(t, here, there)
                break
            tol, shorter = max(tol / 10, options["tightest"]), 0
            self.place(here.theta)
            here = self._point(closure, tol)
        self.place(here.theta)
        memory["tol"], memory["t"] = tol, t
        return first

    def _point(self, closure: Closure, tol: float) -> _Point:
        with accuracy(tol, adjoint_tol=min(0.5, tol**0.5), report=[]) as level:
            loss, gradient = self.evaluate(closure)
        error, doubt = _errors(level, self.options["worst_case"])
        return _Point(self.theta, loss - error, doubt, gradient)


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


def _shorter(t: float, here: _Point, there: _Point) -> float:
    """The minimiser of the parabola through both losses and the slope, between t/10 and t/2."""
    bend = there.loss - here.loss + t * here.slope
    return min(max(t * t * here.slope / (2 * bend), 0.1 * t), 0.5 * t)


def _next(t: float, here: _Point, there: _Point) -> float:
    """<s, s> / <s, y> with s = -t ∇ and y the change of the gradient, between t/10 and 4 t."""
    turn = float(here.gradient @ (here.gradient - there.gradient))
    return min(max(t * here.slope / turn, 0.1 * t), 4 * t) if turn > 0 else 4 * t
