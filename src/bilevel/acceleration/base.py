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
        """Many steps; a rule whose steps are known beforehand hands them to a kernel at once, which
        may overwrite z."""
        for _ in range(steps):
            z, state = self.step(fixpoint, z, state)
        return z, state

    @staticmethod
    def take(state: Any, index: Tensor) -> Any:  # a State, or a part of one
        """The state of the samples `index`."""
        if isinstance(state, tuple):
            return tuple(Acceleration.take(part, index) for part in state)
        return state[index] if isinstance(state, Tensor) and state.ndim else state


def merge(mask: Tensor, fresh: Any, state: Any) -> Any:  # a State, or a part of one
    """`fresh` for the samples of the mask (B,), `state` for the others."""
    if isinstance(fresh, tuple):
        return tuple(merge(mask, a, b) for a, b in zip(fresh, state, strict=True))
    if isinstance(fresh, Tensor) and fresh.ndim and isinstance(state, Tensor):
        return where(mask, (fresh,), (state.expand_as(fresh),))[0]
    return state  # one number for all samples: it has gone on


def where(mask: Tensor, yes: Z, no: Z) -> Z:  # mask (B,)
    pairs = zip(yes, no, strict=True)
    return tuple(torch.where(mask.reshape(-1, *[1] * (a.ndim - 1)), a, b) for a, b in pairs)


def mix(weight: Scalar, a: Z, b: Z) -> Z:
    """b + weight (a - b), part by part."""
    return tuple(_between(weight, p, q) for p, q in zip(a, b, strict=True))


def _between(weight: Scalar, p: Tensor, q: Tensor) -> Tensor:
    if isinstance(weight, Tensor):
        weight = expand(weight, q).to(q.dtype)  # type: ignore[union-attr]
    return torch.lerp(q, p, weight)


@dataclass(frozen=True)
class Plain(Acceleration):
    """z_{k+1} = T(z_k)."""

    feasible = True

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        return fixpoint.T(z), state
