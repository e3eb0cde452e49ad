"""How the C library treats freed memory."""

from functools import cache

import torch


@cache
def keep_freed() -> None:
    """Let glibc keep up to 64 MB of what is freed, from here on.

    By default it gives arrays of some 100 kB back at each step of a loop and maps them anew, page
    by page: up to a third of the time of a step. Its thresholds grow to the largest array it has
    seen freed, of 32 MB at most: here is one, which nobody touches. Elsewhere it does nothing.
    """
    torch.empty(2**25 - 2**16, dtype=torch.uint8)
