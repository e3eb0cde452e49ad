"""How the solve is asked for: the options of the loop, and the modes of autograd."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import isabstract
from numbers import Integral, Real

import torch

from ..acceleration.base import Acceleration
from ..differentiation.base import Strategy
from ..differentiation.certificate import Certificate
from ..errors import OnFail, check_on_fail
from ..solvers.base import Solver


def check_modes() -> None:
    """Refuse the ways of differentiating that would fail inside, or be wrong in silence."""
    if torch._C._functorch.peek_interpreter_stack() is not None:  # type: ignore[attr-defined]
        raise RuntimeError(
            "argmin and solve cannot run inside torch.func transforms (vmap, grad, jacrev): their "
            "loop stops by itself. Use torch.autograd.grad, torch.autograd.functional, or for "
            "tangents torch.autograd.forward_ad.dual_level(); batches go to dim 0 of x. Or make "
            "the solution, as a function of its parameters, fit for them by bl.transformable."
        )


@dataclass(frozen=True, eq=False)
class Options:
    """The keyword arguments of argmin, solve and minimum, checked; None stands for the default."""

    solver: Solver | None = None
    acceleration: Acceleration | None = None
    diff: Strategy | None = None
    tol: float | None = None
    max_iter: int = 20_000
    max_time: float | None = None
    on_fail: OnFail = "raise"
    report: Certificate | None = None

    def __post_init__(self) -> None:
        _instance("solver", self.solver, Solver)
        _instance("acceleration", self.acceleration, Acceleration)
        _instance("diff", self.diff, Strategy)
        _instance("report", self.report, Certificate)
        check_on_fail(self.on_fail)
        tol, steps, seconds = self.tol, self.max_iter, self.max_time
        if tol is not None and not (isinstance(tol, Real) and 0 < float(tol) < 1):
            raise _kind(tol, Real)(
                f"tol must be a number between 0 and 1, got {tol!r}: a relative gap or residual."
            )
        if not isinstance(steps, Integral) or steps < 1:
            raise _kind(steps, Integral)(
                f"max_iter must be a whole number, at least 1, got {steps!r}."
            )
        if seconds is not None and not (isinstance(seconds, Real) and float(seconds) > 0):
            raise _kind(seconds, Real)(
                f"max_time must be a number of seconds > 0, or None for no limit, got {seconds!r}."
            )

    @property
    def iterates(self) -> bool:
        """Whether they speak of steps: a solver that makes none will not do."""
        return self.acceleration is not None or (self.diff is not None and self.diff.records)


def _leaves(kind: type) -> Iterator[type]:
    """The classes of a kind that are no interfaces."""
    for c in kind.__subclasses__():
        if not isabstract(c):
            yield c
        yield from _leaves(c)


def _kind(value: object, kind: type) -> type[Exception]:
    return ValueError if isinstance(value, kind) else TypeError


def _instance(name: str, value: object, kind: type) -> None:
    if value is None or isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise TypeError(
            f"{name} is the class {value.__name__}, an instance is needed: "
            f"{name}={value.__name__}()."
        )
    public = sys.modules[kind.__module__.rpartition(".")[0]].__all__  # of the kind's folder
    names = {c.__name__ for c in _leaves(kind)} & set(public)
    known = ", ".join(f"{name}()" for name in sorted(names)) or "none"
    raise TypeError(
        f"{name} must be an instance of {kind.__name__}, got {value!r}. There are: {known}."
        if kind is not Certificate
        else f"{name} must be a Certificate, got {type(value).__name__}. Pass report=Certificate()."
    )
