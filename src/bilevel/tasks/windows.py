"""A signal, cut into overlapping frames and put together again."""

from __future__ import annotations

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

    def cut(self, signal: Tensor) -> Tensor:  # (length,) -> (frames, n)
        length, before = len(signal), self.n - self.hop
        count = -(-(length + before) // self.hop)
        total = (count - 1) * self.hop + self.n
        at = (torch.arange(total) - before) % (2 * length)
        mirrored = torch.where(at < length, at, 2 * length - 1 - at)
        return signal[mirrored].unfold(0, self.n, self.hop)

    def join(self, frames: Tensor, length: int) -> Tensor:  # (frames, n) -> (length,)
        ramp = (torch.arange(self.n) + 0.5) / self.n
        window = (torch.pi * ramp).sin().square().to(frames)
        starts = self.hop * torch.arange(len(frames))
        at = (starts[:, None] + torch.arange(self.n)).flatten()
        total, weights = frames.new_zeros(2, int(at[-1]) + 1)
        total.index_add_(0, at, (window * frames).flatten())
        weights.index_add_(0, at, window.expand_as(frames).flatten())
        before = self.n - self.hop
        return (total / weights)[before : before + length]
