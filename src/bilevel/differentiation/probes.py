"""Questions put to a gradient: is it consistent, and is there a kink under it?

A residual cannot answer them: an adjoint system may have two solutions, both of residual zero, and
two gradients; and at a kink each side has a perfectly good one. So `hypergradient(...,
probe=True)` hands each adjoint solve's system and answer to `kinks`, and runs backward again with
every solve started at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .conditions import beside
from .noise import noise

if TYPE_CHECKING:
    from .envelope import Least
    from .piggyback import TangentSolve
    from .system import System


class AdjointSolve(NamedTuple):
    """M* w = b, solved."""

    system: System
    w: Tensor
    b: Tensor

    @property
    def point(self) -> tuple[Tensor, ...]:
        return tuple(part.detach() for part in self.system.M.z)


@dataclass
class Probe:
    """What the adjoint solves of one backward pass do besides solving."""

    random_start: float = 0.0  # its length, in units of that of b
    solves: list[AdjointSolve] = field(default_factory=list)
    # of Piggyback: the adjoint found beside, c of the gradient c slope that reached it, conditions
    tangents: list[tuple[TangentSolve, Tensor, tuple[Tensor, ...]]] = field(default_factory=list)
    weighed: list[Tensor] = field(default_factory=list)  # dual-weighted residuals, with their graph
    values: list[Least] = field(default_factory=list)  # least values, which need no adjoint

    def start(self, b: Tensor) -> Tensor | None:
        """Where the solve starts: a random point; None: at 0."""
        if not self.random_start:
            return None
        w = noise(b)
        scale = torch.linalg.vector_norm(b, dim=1) / torch.linalg.vector_norm(w, dim=1)
        return w * (self.random_start * scale)[:, None]

    def solved(self, system: System, w: Tensor, b: Tensor) -> None:
        """A further solve of the same system is a correction of the first."""
        known = [i for i, solve in enumerate(self.solves) if solve.system is system]
        if known:
            first = self.solves[known[0]]
            self.solves[known[0]] = first._replace(w=first.w + w)
        else:
            self.solves.append(AdjointSolve(system, w, b))


_active: ContextVar[Probe | None] = ContextVar("probe", default=None)


def active() -> Probe | None:
    return _active.get()


@contextmanager
def probing(probe: Probe) -> Iterator[Probe]:
    token = _active.set(probe)
    try:
        yield probe
    finally:
        _active.reset(token)


def kinks(solve: AdjointSolve, parameters: Sequence[Tensor]) -> float:
    """The relative change of the gradient between z + e r and z - e r, r random, e twice the
    residual.

    Two products tell whether anything moves (M* w, and the pull of w on the parameters); only then
    the adjoint is solved again on the side that moved.
    """
    (system, w, b), z = solve, solve.point
    M = system.M
    still = M.pull(z, w, parameters)
    size = float(torch.linalg.vector_norm(still))
    step = max(1e-6 if w.dtype == torch.float64 else 1e-3, 2 * _residual(system))
    worst = 0.0
    path = [rms(part) * noise(part) for part in z]
    tilt = rms(z[0]) * noise(z[0], seed=1)
    for sign in (1, -1):
        point = tuple(p + sign * step * r for p, r in zip(z, path, strict=True))
        there = beside(M, point, sign * step * tilt)
        moved = torch.linalg.vector_norm(there.transposed_product(w) - b)
        pull = there.pull(point, w, parameters)
        change = float(torch.linalg.vector_norm(pull - still))
        if moved > 1e2 * step * torch.linalg.vector_norm(b) or change > 1e2 * step * size:
            w_there = system.inverse.of(there)(b, transposed=True).x
            pull = there.pull(point, w_there, parameters)
            change = float(torch.linalg.vector_norm(pull - still))
            whole = size or float(torch.linalg.vector_norm(pull))
            worst = max(worst, change / max(whole, torch.finfo(w.dtype).tiny))
    return worst


def rms(part: Tensor) -> Tensor:
    """The size of z, 1 for a z of 0, which has none of its own."""
    size = part.square().mean().sqrt()
    return torch.where(size > 0, size, 1.0)


def _residual(system: System) -> float:
    known = system.certificate.residual
    return 0.0 if known is None or not known.numel() else float(known.max())
