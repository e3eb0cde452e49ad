"""Steepest descent with a learned step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from .._broadcast import axpy, norm_event, tiny
from ..acceleration import Acceleration
from ..acceleration.base import State, Z
from ..acceleration.line_search import quadratic_only, steepest

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


class LearnedLineSearch(nn.Module, Acceleration):
    """x' = x - c t g, t = <g, g> / <g, Hg> the exact step along the gradient g of a quadratic, and
    c > 0, one a sample, told by a recurrent network that sees how log t and log |g| change.

    The best step is not the one that lowers the energy most now: exact steps turn into a zigzag
    between two eigenvectors [1]. The network starts as c = 1; `learn_rule` trains it for a number
    of steps. The scales of x and of the energy play no part. A step costs two gradients.

    [1] Akaike. On a successive transformation of probability distribution and its application to
    the analysis of the optimum gradient method. 1959.
    """

    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"LearnedLineSearch needs hidden >= 1, got {hidden!r}.")
        self.cell = nn.GRUCell(2, hidden)
        self.head = nn.Linear(hidden, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        quadratic_only(self, fixpoint, z)
        nothing = self.head.weight.new_zeros(len(z[0]), self.cell.hidden_size)
        return nothing, z[0].new_full((len(z[0]), 2), torch.nan)

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        memory, before = state
        gradient, exact = steepest(fixpoint, z)
        sizes = torch.stack([exact, norm_event(gradient)], 1).clamp_min(tiny(exact)).log()
        change = (sizes - before).nan_to_num(0.0)  # none at the start
        memory = self.cell(change.to(memory), memory)
        factor = self.head(memory)[:, 0].exp().to(exact)
        return (axpy(-factor * exact, gradient, z[0]),), (memory, sizes)
