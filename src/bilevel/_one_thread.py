"""What is done to large tensors around a kernel, by one thread.

Torch shares an operation on more than 2^15 numbers among its threads, and these keep their cores
busy for some 3 ms after it. A kernel's threads would have to wait for those cores.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def copied(x: Tensor) -> Tensor:
    """A contiguous copy without history."""
    x = x.detach()
    if not _shared(x):
        return x.clone(memory_format=torch.contiguous_format)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    np.copyto(out.numpy(), x.numpy(force=True))
    return out


def extremes(x: Tensor) -> tuple[Tensor, Tensor]:
    """(min, max), NaN where it has one."""
    if not _shared(x):
        return torch.aminmax(x)
    numbers = x.numpy(force=True)
    return torch.as_tensor(numbers.min()), torch.as_tensor(numbers.max())


def _shared(x: Tensor) -> bool:
    return x.is_cpu and x.layout == torch.strided and x.numel() > 2**15
