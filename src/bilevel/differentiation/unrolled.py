"""Differentiate the iterations themselves."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .._broadcast import eps, norm_event, tiny
from .._tangents import carried, constant, depends
from .base import Strategy

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run
    from .certificate import Certificate

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
            return run(fixpoint, _begun(fixpoint, z0, run), record=True, segment=self.segment)
        if isinstance(self.last, Identified):
            return self._from_identification(self.last, run, fixpoint, z0)
        with constant():
            z = fixpoint.landed(run(fixpoint, z0), run.tol)
        return self._steps(fixpoint, _begun(fixpoint, z, run), self.last)

    def _steps(self, fixpoint: Fixpoint, z: Z, count: int) -> Z:
        done = 0
        while done < count:
            n = min(self.segment or 1, count - done)
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
        wanted, least = run.tol * min(far, 1.0), 64 * eps(z[0])  # dz/dθ starts from 0 there
        z = replace(run, tol=max(wanted, least))(
            fixpoint, _begun(fixpoint, z, run), record=True, segment=self.segment
        )
        after = certificate.iterations
        assert after is not None
        if wanted < least:  # the residual ends at rounding, the derivative goes on to fall
            steps = int(after.max()) if len(after) else 0
            fallen = math.log(run.tol) / math.log(least / far) if far > least else 2.0
            further = min(math.ceil((fallen - 1) * max(steps, last.steps)), run.max_iter)
            z, after = self._steps(fixpoint, z, further), after + further
        certificate.iterations = before + after
        return z


def _begun(fixpoint: Fixpoint, z: Z, run: Run) -> Z:
    """z, of which the certificate learns what of the loss's gradient reaches it."""
    if carried() or not torch.is_grad_enabled():
        return z
    step = fixpoint.T(z)  # a formal input: of torch.autograd.grad(loss, θ) the path leads there
    return _Begin.apply(run.certificate, len(z), *z, *step) if depends(step) else z  # type: ignore[return-value]


class _Begin(torch.autograd.Function):
    """The start of what is recorded. The gradient (dT/dz)*^k v that reaches it, k steps from the
    end, is what the sum of k terms leaves of the adjoint system: v - M* w."""

    @staticmethod
    def forward(ctx: Any, certificate: Certificate, count: int, *z: Tensor) -> Z:
        ctx.certificate, ctx.formal = certificate, len(z)
        return tuple(part.clone() for part in z[:count])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        told, single = ctx.certificate, torch._C._functorch.is_legacy_batchedtensor  # type: ignore[attr-defined]
        if told.pull is not None and not any(map(single, cotangents)):
            left = torch.stack([norm_event(part.detach()).square() for part in cotangents])
            share = left.sum(0).sqrt() / told.pull.clamp_min(tiny(told.pull))
            share = torch.where(told.pull > 0, share, 0.0)
            before = told.adjoint_residual
            told.adjoint_residual = share if before is None else torch.maximum(share, before)
            told.update_estimate()
        return None, None, *(None for _ in range(ctx.formal))


def _repeat(fixpoint: Fixpoint, z: Z, n: int) -> Z:
    for _ in range(n):
        z = fixpoint.T(z)
    return z


def stretch(steps: Any, parts: tuple[Any, ...], recompute: bool) -> Any:
    """steps(*parts), keeping only the parts for backward where `recompute`."""
    return checkpoint(steps, *parts, use_reentrant=False) if recompute else steps(*parts)
