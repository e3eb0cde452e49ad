"""Differentiate the iterations themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._broadcast import eps
from .._tangents import constant
from .base import Strategy

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run

Z = tuple[Tensor, ...]


@dataclass(frozen=True)
class Identified:
    """Where recording starts: the active manifold has not changed for `steps` steps."""

    steps: int = 50

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Identified needs steps >= 1, got {self.steps}.")


@dataclass(frozen=True)
class Unroll(Strategy):
    """dz_k/dθ through the recorded iterations: all of the run's, or the `last` k steps of T from
    the solution.

    last=Identified() records the run from where its active manifold has settled (finite
    identification: Lewis 2002; Liang, Fadili, Peyre 2017), until the residual has fallen by tol
    since. Before that, derivatives do not converge: they follow the kinks that are passed.

    Memory grows with the recorded steps; with `segment=n` only every n-th iterate is kept and the
    steps between are computed twice. The derivative is that of the k-th iterate, and converges to
    that of the solution no faster than the iterates do (Gilbert 1992; Mehmood, Ochs 2020); where
    the iterates stall, it says nothing of the solution.
    """

    last: int | Identified | None = None  # None: the whole run, momentum included
    segment: int | None = None

    def __post_init__(self) -> None:
        for name in ("last", "segment"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"Unroll needs {name} >= 1, got {value}.")

    @property
    def settles(self) -> bool:  # type: ignore[override]
        return self.last is not None

    @property
    def records(self) -> bool:  # type: ignore[override]
        return not isinstance(self.last, int)

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        if self.last is None:
            return run(fixpoint, z0, record=True, segment=self.segment)
        if isinstance(self.last, Identified):
            return self._from_identification(self.last, run, fixpoint, z0)
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

    def _from_identification(self, last: Identified, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        certificate = run.certificate
        with constant():
            z = run(fixpoint, z0, identified=last.steps)
        left, before = certificate.residual, certificate.iterations
        assert left is not None and before is not None
        far = float(left.max()) if left.numel() else 1.0
        tol = max(run.tol * min(far, 1.0), 64 * eps(z[0]))  # dz/dθ starts from 0 there
        z = replace(run, tol=tol)(fixpoint, z, record=True, segment=self.segment)
        certificate.iterations = before + certificate.iterations  # type: ignore[operator]
        return z


def _repeat(fixpoint: Fixpoint, z: Z, n: int) -> Z:
    for _ in range(n):
        z = fixpoint.T(z)
    return z


def stretch(steps: Any, parts: tuple[Any, ...], recompute: bool) -> Any:
    """steps(*parts), keeping only the parts for backward where `recompute`."""
    return checkpoint(steps, *parts, use_reentrant=False) if recompute else steps(*parts)
