"""The processor's time of a call; for interpreters without torch, too."""

import time
from collections.abc import Callable


def processor_seconds(call: Callable[[], object], budget: float = 0.2) -> float:
    """Of one call, the least of some rounds of 10 ms: a shared machine only adds to it. The first
    call, which may compile, is not counted."""
    call()
    best, end = float("inf"), time.process_time() + budget
    while True:
        count, start = 0, time.process_time()
        while not count or time.process_time() - start < 0.01:
            call()
            count += 1
        best = min(best, (time.process_time() - start) / count)
        if time.process_time() > end:
            return best
