"""Rules on the sequence: momentum, restarts, line searches, growing and shrinking steps.

They belong to the run, not to T. Every rule works sample by sample: its state holds tensors with
the batch in dim 0, so that a batch does what its samples do alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint

Z = tuple[Tensor, ...]
# tensors of rank >= 1 carry the batch in dim 0; nested tuples, floats and 0-dim tensors may occur
State = tuple[Any, ...]


class Acceleration(ABC):
    """z_{k+1} from z_k, by way of the fixed point's T."""

    feasible: ClassVar[bool] = False  # whether its iterates are outcomes of T, no extrapolations

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        return ()

    @abstractmethod
    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]: ...

    def advance(self, fixpoint: Fixpoint, z: Z, state: State, steps: int) -> tuple[Z, State]:
        """Many steps; a rule whose steps are known beforehand hands them to a kernel at once."""
        for _ in range(steps):
            z, state = self.step(fixpoint, z, state)
        return z, state

    @staticmethod
    def take(state: State, index: Tensor) -> State:
        """The state of the samples `index`."""

        def pick(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(pick(v) for v in value)
            return value[index] if isinstance(value, Tensor) and value.ndim else value

        return pick(state)


def merge(mask: Tensor, fresh: State, state: State) -> State:
    """`fresh` for the samples of the mask (B,), `state` for the others."""

    def pick(a: Any, b: Any) -> Any:
        if isinstance(a, tuple):
            return tuple(pick(p, q) for p, q in zip(a, b, strict=True))
        if isinstance(a, Tensor) and a.ndim and isinstance(b, Tensor):
            return where(mask, (a,), (b.expand_as(a),))[0]
        return b  # one number for all samples: it has gone on

    return pick(fresh, state)


def where(mask: Tensor, yes: Z, no: Z) -> Z:  # mask (B,)
    pairs = zip(yes, no, strict=True)
    return tuple(torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs)


def mix(weight: Scalar, a: Z, b: Z) -> Z:
    """b + weight (a - b), part by part."""
    return tuple(q + expand(weight, q) * (p - q) for p, q in zip(a, b, strict=True))


@dataclass(frozen=True)
class Plain(Acceleration):
    """z_{k+1} = T(z_k)."""

    feasible = True

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        return fixpoint.T(z), state
