"""Ctrl-C and SIGTERM among many processes: never in the middle of a message."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REASONS = {
    signal.SIGINT: "Interrupted.",
    signal.SIGTERM: "Stopped by SIGTERM, which torchrun sends when another process has ended.",
}


class Signals:
    """Inside, the first of both raises KeyboardInterrupt; while held, it waits for the release.

    Later ones find the run saving itself and are ignored. So is SIGTERM after an error, until the
    process ends: torchrun sends it when it sees the first process fail, and it would cut the
    message short. (It kills what has not ended 30 s later.)
    """

    def __init__(self) -> None:
        self._held = self._ending = False
        self._pending: int | None = None

    def __enter__(self) -> Signals:
        # only the main thread gets signals; in another one there is nothing to do
        main = threading.current_thread() is threading.main_thread()
        self._before = {s: signal.signal(s, self._receive) for s in REASONS} if main else {}
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for number, handler in self._before.items():
            ignore = number == signal.SIGTERM and kind is not None
            signal.signal(number, signal.SIG_IGN if ignore else handler)

    def ignore(self) -> None:
        """From now on: the run is ending anyway."""
        self._ending, self._pending = True, None

    @contextmanager
    def held(self) -> Iterator[None]:
        """One that comes inside is raised at the end, unless something else is: that ends the run,
        and nothing later takes its place."""
        self._held = True
        try:
            yield
        except BaseException:
            self.ignore()
            raise
        finally:
            self._held = False
        self._raise_pending()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Inside of `held`: raise at once."""
        try:
            self._held = False
            self._raise_pending()
            yield
        finally:
            self._held = True

    def _receive(self, number: int, _: FrameType | None) -> None:
        if not self._ending:
            self._pending = number
            if not self._held:
                self._raise_pending()

    def _raise_pending(self) -> None:
        if self._pending is not None:
            reason = REASONS[signal.Signals(self._pending)]
            self.ignore()
            raise KeyboardInterrupt(reason)
