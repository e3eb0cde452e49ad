"""The random numbers of a run: seeded, saved in checkpoints, afterwards as the caller had them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def get_state() -> dict[str, Any]:
    """Of torch (every device), Python and NumPy: whatever data and models may draw from."""
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (
            name,
            torch.from_numpy(np.array(keys, np.int64)),
            *rest,
        ),  # uint32 does not pickle
    }


def set_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside, all of them start from the seed; afterwards they are as they were."""
    outside = get_state()
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        set_state(outside)
