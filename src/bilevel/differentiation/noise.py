"""Random directions for what is found by trying."""

from __future__ import annotations

import torch
from torch import Tensor


def noise(like: Tensor, seed: int = 0) -> Tensor:
    """The same random numbers in every run."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
