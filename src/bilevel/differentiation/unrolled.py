"""Differentiate the iterations themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._tangents import constant
from .base import Strategy

if TYPE_CHECKING:
    from ..driver import Run
    from ..fixpoint import Fixpoint

Z = tuple[Tensor, ...]


@dataclass(frozen=True)
class Unroll(Strategy):
    """dz_k/dθ through the recorded iterations: all of the run's, or the `last` k steps of T from
    the solution.

    Memory grows with the recorded steps; with `segment=n` only every n-th iterate is kept and the
    steps between are computed twice. The derivative is that of the k-th iterate, and converges to
    that of the solution no faster than the iterates do (Gilbert 1992; Mehmood, Ochs 2020); where
    the iterates stall, it says nothing of the solution.
    """

    last: int | None = None  # None: the whole run, momentum included
    segment: int | None = None

    def __post_init__(self) -> None:
        for name in ("last", "segment"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"Unroll needs {name} >= 1, got {value}.")

    @property
    def settles(self) -> bool:  # type: ignore[override]
        return self.last is not None

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        if self.last is None:
            return run(fixpoint, z0, record=True, segment=self.segment)
        with constant():
            z = fixpoint.landed(run(fixpoint, z0), run.tol)
        done = 0
        while done < self.last:
            n = min(self.segment or 1, self.last - done)
            z = stretch(
                lambda *parts, n=n: _repeat(fixpoint, parts, n), z, self.segment is not None
            )
            done += n
        return z


def _repeat(fixpoint: Fixpoint, z: Z, n: int) -> Z:
    for _ in range(n):
        z = fixpoint.T(z)
    return z


def stretch(steps: Any, parts: tuple[Any, ...], recompute: bool) -> Any:
    """steps(*parts), keeping only the parts for backward where `recompute`."""
    return checkpoint(steps, *parts, use_reentrant=False) if recompute else steps(*parts)
