"""How kernels are compiled, and how their rows are shared among threads."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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

    The rows do not interact, so results do not depend on how many threads there are. The threads
    are Python's own: any thread may call, and a fork finds none of them.
    """
    shares = min(torch.get_num_threads(), rows, rows * size // _SHARE)
    known, start = len(kernel.overloads), time.perf_counter()
    if shares < 2:
        kernel(0, rows, *arguments)
    else:
        kernel(0, 0, *arguments)  # compiled once, not by each thread
        bounds = [rows * i // shares for i in range(shares + 1)]
        parts = [
            _pool().submit(kernel, bounds[i], bounds[i + 1], *arguments) for i in range(1, shares)
        ]
        kernel(bounds[0], bounds[1], *arguments)
        for part in parts:
            part.result()
    seconds = time.perf_counter() - start
    if len(kernel.overloads) > known and seconds > 1 and not _all_loaded(kernel):
        logging.getLogger("bilevel").warning(
            "compiled %s in %.1f s; it is kept on disk for the next time", kernel.__name__, seconds
        )


def _all_loaded(kernel: Any) -> bool:
    """Whether all of its machine code came from the disk."""
    return sum(kernel.stats.cache_hits.values()) == len(kernel.overloads)


_pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork inherits no threads


def _pool() -> ThreadPoolExecutor:
    process = os.getpid()
    if process not in _pools:
        _pools[process] = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="bilevel")
    return _pools[process]
