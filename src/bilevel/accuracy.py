"""accuracy: how well the solves inside are done, told from outside; and what they report of their
error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from .differentiation.certificate import Certificate


@dataclass(eq=False)
class Accuracy:
    """What `with accuracy(tol) as level` gives."""

    tol: float | None
    adjoint_tol: float | None = None
    report: list[Certificate] | None = None
    others: int = field(default=0, init=False)  # how many solves named a tol of their own


_current: ContextVar[Accuracy | None] = ContextVar("bilevel_accuracy", default=None)


def current_accuracy() -> Accuracy | None:
    """The level of the innermost `accuracy`, or None."""
    return _current.get()


@contextmanager
def accuracy(
    tol: float | None = None,
    adjoint_tol: float | None = None,
    *,
    report: list[Certificate] | None = None,
) -> Iterator[Accuracy]:
    """Inside, `argmin` and `solve` calls that name no tol of their own are solved to `tol`, their
    adjoints to `adjoint_tol` (tol / 10 unless given); without a tol, all calls, to their own.

    So a model is solved more or less accurately without being built again. A context holds for its
    own thread. report: a list that gets the certificates of these solves, their adjoint parts when
    backward runs, with a bound of the distance to the solution where one is known.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[0.0, 0.1, 1.0, 1.1]], dtype=torch.float64)
    >>> with bl.accuracy(1e-2, report=[]) as level:
    ...     x = bl.argmin(bl.LeastSquares(y) + 0.1 * bl.L1() @ bl.Gradient(1))
    >>> level.report[0].gap <= 1e-2
    tensor([True])
    """
    for name, value in (("tol", tol), ("adjoint_tol", adjoint_tol)):
        if value is not None and not 0 < value <= 0.5:
            raise ValueError(
                f"accuracy needs {name} in (0, 0.5], got {value}: a relative accuracy, 1e-4 say."
            )
    level = Accuracy(tol, adjoint_tol, report)
    token = _current.set(level)
    try:
        yield level
    finally:
        _current.reset(token)
