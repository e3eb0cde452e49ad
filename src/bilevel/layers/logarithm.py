"""Numbers that stay positive while they are learned: as their logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def logarithm(
    layer: nn.Module,
    name: str,
    start: float | Sequence[float] | Tensor,
    like: Tensor | None = None,  # of the dtype and the device; default the default ones
) -> Tensor:
    """log(start); the layer and the name are what an error tells."""
    number = torch.as_tensor(start, dtype=torch.float64)
    if not bool(((number > 0) & number.isfinite()).all()):
        raise ValueError(
            f"{type(layer).__name__} needs a positive, finite {name} to start from, got {start}."
        )
    return number.log().to(torch.empty(0) if like is None else like)
