"""What can go wrong, as types."""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .solution import Solution

OnFail = Literal["raise", "warn", "ignore"]


class NotConverged(RuntimeError):
    """The loop ended before its tolerance; `solution` is what it had (None: an adjoint solve)."""

    def __init__(self, message: str, solution: Solution | None = None) -> None:
        super().__init__(message)
        self.solution = solution


class NotUnique(RuntimeError):
    """The gradient asked for does not exist: the loss reads what the problem does not determine."""


class NoSolution(ValueError):
    """A loss that reads no solution of argmin was handed to `hypergradient`."""


class ConvergenceWarning(UserWarning):
    """As NotConverged, with on_fail="warn"."""


class KinkWarning(UserWarning):
    """The solution lies at, or too near to, a point where only directional derivatives exist."""


def fail(error: Exception, on_fail: OnFail) -> None:
    """The one place where on_fail is read."""
    if on_fail == "raise":
        raise error
    if on_fail == "warn":
        warnings.warn(str(error), ConvergenceWarning, stacklevel=user_level())


def user_level() -> int:
    """The stacklevel, seen from `fail`, of the line outside this library and torch: the user's."""
    frame, level = sys._getframe(1), 1
    while frame is not None:
        if frame.f_globals.get("__name__", "").split(".")[0] not in ("bilevel", "torch"):
            break
        frame, level = frame.f_back, level + 1
    return level


def check_on_fail(on_fail: str) -> None:
    if on_fail not in ("raise", "warn", "ignore"):
        raise ValueError(f'on_fail must be "raise", "warn" or "ignore", got {on_fail!r}.')
