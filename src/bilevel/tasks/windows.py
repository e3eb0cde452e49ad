"""A signal, cut into overlapping frames and put together again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Frames of n samples every `hop`, and their mean, weighted by sin^2: no seam is left.

    The signal goes on beyond its ends as in a mirror. A mean of values in a cell is in the cell.
    """

    n: int
    hop: int
    at_once: int = 4096  # frames, so that the memory beyond the signal's does not grow with it

    def cut(self, signal: Tensor) -> Tensor:  # (length,) -> (frames, n)
        length, before = len(signal), self.n - self.hop
        count = -(-(length + before) // self.hop)
        total = (count - 1) * self.hop + self.n
        at = (torch.arange(total) - before) % (2 * length)
        mirrored = torch.where(at < length, at, 2 * length - 1 - at)
        return signal[mirrored].unfold(0, self.n, self.hop)

    def mean(self, signal: Tensor, refined: Callable[[Tensor], Tensor]) -> Tensor:  # (length,)
        """Of what `refined` makes of the frames, some of them at a time."""
        frames, before = self.cut(signal), self.n - self.hop
        ramp = (torch.arange(self.n) + 0.5) / self.n
        window = (torch.pi * ramp).sin().square().to(signal)
        total, weights = signal.new_zeros(2, (len(frames) - 1) * self.hop + self.n)
        for first in range(0, len(frames), self.at_once):
            part = refined(frames[first : first + self.at_once])
            starts = self.hop * (first + torch.arange(len(part)))
            at = (starts[:, None] + torch.arange(self.n)).flatten()
            total.index_add_(0, at, (window * part).flatten())
            weights.index_add_(0, at, window.expand_as(part).flatten())
        return (total / weights)[before : before + len(signal)]
