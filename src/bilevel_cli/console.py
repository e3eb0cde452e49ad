"""What the command line prints: messages, and the progress of long work."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer


@contextmanager
def messages() -> Iterator[None]:
    """Warnings, interruptions and what a user can do wrong: one plain message each, on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = lambda message, *_, **__: _tell(f"Warning: {message}", "yellow")
        try:
            yield
        except KeyboardInterrupt as stop:
            _tell_error(stop, str(stop) or "Interrupted.", "yellow")
            raise typer.Exit(130) from None
        except (ValueError, ArithmeticError, OSError, EOFError, RuntimeError, MemoryError) as error:
            if os.environ.get("BILEVEL_TRACEBACK"):
                raise
            _tell_error(error, f"Error: {error}", "red")
            raise typer.Exit(1) from None


def _tell_error(error: BaseException, text: str, colour: str) -> None:
    """With its notes; once, where many processes raise the same."""
    from bilevel.learning.shards import is_echo

    if not is_echo(error):
        _tell("\n".join([text, *getattr(error, "__notes__", ())]), colour)


def _tell(text: str, colour: str) -> None:
    """On stderr, in the words of the command line where the library speaks of Python."""
    from rich.console import Console

    text = re.sub(r"^(Error: )?\[Errno \d+\] ", r"\1", text.replace("resume=True", "--resume"))
    Console(stderr=True, soft_wrap=True).print(text, style=colour, markup=False, highlight=False)


def say(text: Any = "") -> None:
    from rich.console import Console

    Console(soft_wrap=isinstance(text, str)).print(text, markup=False, highlight=False)


@contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[], None]]:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
