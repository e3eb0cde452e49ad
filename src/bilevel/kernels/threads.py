"""Independent pieces of work on several cores."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch


def spread(work: Callable[..., None], jobs: Iterable[tuple]) -> None:
    """work(*job) for every job, on torch.get_num_threads() threads; `work` releases the GIL."""
    jobs = list(jobs)
    threads = torch.get_num_threads()
    if threads == 1 or len(jobs) == 1:
        for job in jobs:
            work(*job)
        return
    for done in [_pool(threads).submit(work, *job) for job in jobs]:
        done.result()


@lru_cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "bilevel")
