"""Rules that learn the Jacobian of z - T(z) from the iterates: for any T, monotone or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps, inner, norm_event, tiny
from .base import Acceleration, State, Z

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


@dataclass(frozen=True)
class _Remembering(Acceleration):
    """What both share: the last iterate, its move T(z) - z, and twice `memory` changes (B, n)."""

    memory: int = 5

    def __post_init__(self) -> None:
        if not isinstance(self.memory, int) or self.memory < 1:
            name = type(self).__name__
            raise ValueError(f"{name} needs a memory of at least 1 change, got {self.memory!r}.")

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        v = _flat(z)
        zero = torch.zeros_like(v)
        none = (zero,) * self.memory
        return v, zero, none, none, self._numbers(v)

    def _numbers(self, v: Tensor) -> Tensor:
        """What is kept beside: of 0 at the start."""
        return v.new_zeros(len(v), self.memory, self.memory)


class AndersonMixing(_Remembering):
    """z' = T(z) - sum_i c_i (T(z_i+1) - T(z_i)) over the last `memory` changes, with the c for
    which the linearised residual is least.

    For fixed points of networks, and for any other T. A step costs one T and about 2 memory
    products of vectors; where T contracts strongly, Plain() is faster. On a T that is not smooth
    there is no guarantee of convergence.

    [1] Walker, Ni. Anderson acceleration for fixed-point iterations. SINUM, 2011.
    """

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        v, t = _flat(z), _flat(fixpoint.T(z))
        before, moved, images, turns, gram = state
        move = t - v
        known = ((v - before).abs().amax(1, keepdim=True) > 0).to(v)  # not so at a start
        images = (*images[1:], known * (t - before - moved))
        turns = (*turns[1:], known * (move - moved))
        gram = _grown(gram, _products(turns, turns[-1]))
        c = _least(gram, _products(turns, move), eps(v))
        new = t
        for i, image in enumerate(images):
            new = torch.addcmul(new, c[:, i : i + 1], image, value=-1)
        return _like(new, z), (v, move, images, turns, gram)


def _products(rows: Z, x: Tensor) -> Tensor:  # -> (B, memory)
    return torch.stack([inner(row, x) for row in rows], 1)


def _grown(gram: Tensor, latest: Tensor) -> Tensor:
    """The Gram matrix without its first row and column, and with the latest ones at its end."""
    kept = torch.cat([gram[:, 1:, 1:], latest[:, :-1, None]], 2)
    return torch.cat([kept, latest[:, None]], 1)


def _least(gram: Tensor, b: Tensor, rounding: float) -> Tensor:
    """gram c = b, held off its rounding; c = 0 where nothing is known yet."""
    size = gram.diagonal(dim1=1, dim2=2)
    scale = size.amax(1, keepdim=True)
    ridge = 10 * rounding * scale + torch.where(size == 0, scale.clamp_min(tiny(b)), 0.0)
    return torch.linalg.solve(gram + torch.diag_embed(ridge), b)


@dataclass(frozen=True)
class Broyden(_Remembering):
    """z' = z - H (z - T(z)), H = I + sum u_i v_i^T the inverse Jacobian told by rank-one updates;
    after `memory` of them it starts anew.

    Fewer steps than AndersonMixing() where T does not contract; a step costs one T and about 6
    memory products of vectors. No guarantee far from a solution.

    [1] Broyden. A class of methods for solving nonlinear simultaneous equations. 1965.
    """

    memory: int = 15

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        v, t = _flat(z), _flat(fixpoint.T(z))
        before, moved, left, right, count = state
        move = t - v
        full = count >= self.memory
        if bool(full.any()):
            left, right = (tuple(torch.where(full, 0.0, r) for r in rows) for rows in (left, right))
            count = torch.where(full, 0.0, count)
        change, turn = v - before, moved - move  # of z, and of z - T(z)
        turned = turn + _combined(left, right, turn)  # H turn
        row = change + _combined(right, left, change)  # H^T change
        slope = inner(change, turned)[:, None]
        least = 100 * eps(v) * norm_event(change) * norm_event(turned)
        good = slope.abs() > least[:, None]
        column = torch.where(good, (change - turned) / torch.where(good, slope, 1.0), 0.0)
        left, right = (*left[1:], column), (*right[1:], row)
        new = v + move + _combined(left, right, move)
        return _like(new, z), (v, move, left, right, count + 1)

    def _numbers(self, v: Tensor) -> Tensor:
        return v.new_zeros(len(v), 1)


def _combined(left: Z, right: Z, x: Tensor) -> Tensor:
    """sum_i left_i <right_i, x>"""
    total = torch.zeros_like(x)
    for a, b in zip(left, right, strict=True):
        total = torch.addcmul(total, inner(b, x)[:, None], a)
    return total


def _flat(z: Z) -> Tensor:  # -> (B, n)
    return z[0].flatten(1) if len(z) == 1 else torch.cat([part.flatten(1) for part in z], 1)


def _like(v: Tensor, z: Z) -> Z:
    sizes = [part[0].numel() for part in z]
    return tuple(a.reshape(b.shape) for a, b in zip(v.split(sizes, 1), z, strict=True))
