"""When the active set of a run has settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..differentiation.active import Active

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..solvers.base import Z
    from .looks import Look, Rows


@dataclass(eq=False)
class Watch:
    """What the looks at a batch have seen of its active manifolds; all one a sample."""

    first: Z  # the iterate at which the manifold was first seen as it is
    residual: Tensor  # (B,), there
    since: Tensor  # (B,): the step of that
    steady: Tensor  # (B,): steps from there to the last look
    margin: Tensor  # (B,), at the last look
    due: int = 0  # the step from which on another look is worth its price
    _signature: Tensor | None = None

    @staticmethod
    def of(z: Z) -> Watch:
        batch = z[0].new_zeros(len(z[0]))
        steps = torch.zeros_like(batch, dtype=torch.long)
        start = tuple(part.clone() for part in z)
        unknown = torch.full_like(batch, torch.nan)
        return Watch(start, torch.full_like(batch, torch.inf), steps, steps.clone(), unknown)

    def look(self, fixpoint: Fixpoint, look: Look, rows: Rows, k: int) -> None:
        """The manifold of the samples `rows` after k steps."""
        z = look.z
        rows = torch.arange(len(self.since), device=z[0].device)[rows]
        active = Active(fixpoint.problem, (fixpoint.primal(z), *fixpoint.dual(z)))
        seen = active.signature
        if self._signature is None:
            self._signature = seen.new_full((len(self.since), seen.shape[1]), -1)
            self.since[:] = -1
        new = (self._signature[rows] != seen).any(1) | (self.since[rows] < 0)
        for whole, part in zip(self.first, z, strict=True):
            whole[rows[new]] = part[new]
        if look.residual is not None:
            self.residual[rows[new]] = look.residual[new]
        self._signature[rows], self.margin[rows] = seen, active.margin
        self.since[rows[new]] = k
        self.steady[rows] = k - self.since[rows]
        self.due = 2 * k
