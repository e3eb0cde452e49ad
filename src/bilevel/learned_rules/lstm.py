"""A recurrent network that sees how a coordinate moves and tells how it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .._broadcast import tiny
from ..acceleration import Acceleration
from ..acceleration.base import State, Z

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


class CoordinatewiseLSTM(nn.Module, Acceleration):
    """z' = z + m, m = 2 a d + b m_last coordinate by coordinate: d = T(z) - z, m_last the last m,
    a and b in (0, 1) told by one small network, the same for every coordinate.

    With GradientDescent() a learned optimizer. The network, two LSTM cells and a linear map, sees
    log |d / m_last| of a coordinate and whether both agree in sign, and remembers what it saw of
    that coordinate: the scale of x plays no part. It starts as the heavy ball, a = 1/2, b =
    momentum; `learn_rule` trains it. It is as good as its training: on other problems, and beyond
    the steps it was trained for, nothing holds it, see Guarded. A step costs one T and, a
    coordinate, 24 hidden^2 operations.

    [1] Andrychowicz et al. Learning to learn by gradient descent by gradient descent. NeurIPS,
        2016. There m itself is the network's outcome, which has a scale to learn.
    """

    def __init__(self, hidden: int = 20, *, momentum: float = 0.9) -> None:
        super().__init__()
        if not isinstance(hidden, int) or hidden < 1:
            raise ValueError(f"CoordinatewiseLSTM needs hidden >= 1, got {hidden!r}.")
        if not 0 < momentum < 1:
            raise ValueError(f"CoordinatewiseLSTM needs 0 < momentum < 1, got {momentum}.")
        self.cells = nn.ModuleList([nn.LSTMCell(2, hidden), nn.LSTMCell(hidden, hidden)])
        self.head = nn.Linear(hidden, 2)
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(torch.tensor([0.5, momentum]).logit())

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        weight = self.head.weight  # the network's dtype, which need not be z's
        return tuple(
            (torch.zeros_like(part), *(weight.new_zeros(*part.shape, weight.shape[1]),) * 4)
            for part in z
        )

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        triples = zip(fixpoint.T(z), z, state, strict=True)
        state = tuple(self._moved(t - part, *memory) for t, part, memory in triples)
        return tuple(part + memory[0] for part, memory in zip(z, state, strict=True)), state

    def _moved(self, d: Tensor, last: Tensor, *memory: Tensor) -> State:
        """The move m, and what the two cells remember: (h, c) each, (*d.shape, hidden)."""
        signal, kept = _seen(d, last).to(self.head.weight).flatten(0, -2), []
        for cell, h, c in zip(self.cells, memory[::2], memory[1::2], strict=True):
            signal, inner = cell(signal, (h.flatten(0, -2), c.flatten(0, -2)))
            kept += [signal.reshape(h.shape), inner.reshape(h.shape)]
        a, b = self.head(signal).to(d).reshape(*d.shape, 2).sigmoid().unbind(-1)
        return 2 * a * d + b * last, *kept


def _seen(d: Tensor, last: Tensor) -> Tensor:  # (B, *event) -> (B, *event, 2)
    """log |d / last| / 5 in [-2, 2], and 1 or -1 where both agree in sign or not."""
    sizes = (part.abs().clamp_min(tiny(d)).log() for part in (d, last))
    ratio = (next(sizes) - next(sizes)) / 5
    return torch.stack([ratio.clamp(-2, 2), d.sign() * last.sign()], -1)
