"""How the solve is asked for: the options of the loop, and the modes of autograd."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import isabstract
from numbers import Integral, Real

import torch

from ..acceleration.base import Acceleration
from ..differentiation.base import Strategy
from ..differentiation.certificate import Certificate
from ..errors import check_on_fail
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


def check_options(
    *, solver, acceleration, diff, report, tol, max_iter, max_time, on_fail: str
) -> None:
    """The keyword arguments of argmin and solve, None standing for the default."""
    _instance("solver", solver, Solver)
    _instance("acceleration", acceleration, Acceleration)
    _instance("diff", diff, Strategy)
    _instance("report", report, Certificate)
    check_on_fail(on_fail)
    if tol is not None and not (isinstance(tol, Real) and 0 < float(tol) < 1):
        raise _kind(tol, Real)(
            f"tol must be a number between 0 and 1, got {tol!r}: a relative gap or residual."
        )
    if not isinstance(max_iter, Integral) or max_iter < 1:
        raise _kind(max_iter, Integral)(
            f"max_iter must be a whole number, at least 1, got {max_iter!r}."
        )
    if max_time is not None and not (isinstance(max_time, Real) and float(max_time) > 0):
        raise _kind(max_time, Real)(
            f"max_time must be a number of seconds > 0, or None for no limit, got {max_time!r}."
        )


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
    from bilevel import __all__ as public

    names = {c.__name__ for c in _leaves(kind)} & set(public)
    known = ", ".join(f"{name}()" for name in sorted(names)) or "none"
    raise TypeError(
        f"{name} must be an instance of {kind.__name__}, got {value!r}. There are: {known}."
        if kind is not Certificate
        else f"{name} must be a Certificate, got {type(value).__name__}. Pass report=Certificate()."
    )
