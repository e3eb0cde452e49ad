"""How kernels are compiled, and how their rows are shared among threads."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import torch
from numba import njit

_SHARE = 2**16  # numbers that are worth a thread: about half a millisecond


def compiled(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """The function as machine code, made at its first call and kept on disk; it holds no lock.

    What it calls stands in the same file: the cache of a file sees only changes of its own.
    """
    options = {"nogil": True, "error_model": "numpy", **options}

    def compile_later(function: Callable[..., Any]) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder can be written to: compiled anew in each process
            return njit(**options)(function)

    return compile_later


def over_rows(kernel: Any, rows: int, size: int, *arguments: Any) -> None:
    """kernel(begin, end, *arguments) on rows of a given size, shared among torch's threads.

    The rows do not interact, so results do not depend on how many threads there are.
    """
    shares = min(torch.get_num_threads(), rows, rows * size // _SHARE)
    alone = shares < 2
    with announced(kernel):  # compiled once, not by each thread
        kernel(0, rows if alone else 0, *arguments)
    if not alone:
        bounds = [rows * i // shares for i in range(shares + 1)]
        spread(kernel, [(*pair, *arguments) for pair in pairwise(bounds)])


def spread(work: Callable[..., None], jobs: Sequence[tuple[Any, ...]]) -> None:
    """work(*job) for every job, on torch's number of threads; `work` holds no lock.

    The threads are Python's own: any thread may call, and a fork finds none of them.
    """
    if torch.get_num_threads() == 1:
        for job in jobs:
            work(*job)
        return
    others = [_pool().submit(work, *job) for job in jobs[1:]]
    for job in jobs[:1]:
        work(*job)
    for other in others:
        other.result()


class announced:
    """Tell of a compilation inside that took more than a second."""

    def __init__(self, *kernels: Any) -> None:
        self.kernels = kernels

    def __enter__(self) -> None:
        self.known, self.start = self._versions(), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self.start
        if seconds < 1 or self._versions() == self.known or all(map(_all_loaded, self.kernels)):
            return
        names = ", ".join(kernel.__name__ for kernel in self.kernels)
        logging.getLogger("bilevel").warning(
            "compiled %s in %.1f s; it is kept on disk for the next time", names, seconds
        )

    def _versions(self) -> int:
        return sum(len(kernel.overloads) for kernel in self.kernels)


def _all_loaded(kernel: Any) -> bool:
    """Whether all of its machine code came from the disk."""
    return sum(kernel.stats.cache_hits.values()) == len(kernel.overloads)


_pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork inherits no threads


def _pool() -> ThreadPoolExecutor:
    process = os.getpid()
    if process not in _pools:
        _pools[process] = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="bilevel")
    return _pools[process]
