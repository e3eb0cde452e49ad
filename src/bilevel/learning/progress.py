"""A progress bar with the loss and the time left, by Rich; nothing at all with progress=False."""

from __future__ import annotations

from typing import Any


class Progress:
    """`with Progress(steps, shown) as bar: bar.update(step, record)`"""

    def __init__(self, steps: int, shown: bool) -> None:
        self._bar: Any = None
        if not shown:
            return
        from rich import progress  # 50 ms: only when a bar is wanted

        self._bar = progress.Progress(  # whole in 80 columns
            progress.BarColumn(bar_width=10),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        )
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, record: dict[str, Any] | None = None) -> None:
        if self._bar is None:
            return
        text = "" if record is None else _told(record)
        self._bar.update(self._task, completed=step, description=text)

    def finish(self, step: int) -> None:
        """The run ended at this step, before its time: nothing is left to do."""
        if self._bar is not None:
            self._bar.update(self._task, total=step, completed=step)

    def say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)


def _told(record: dict[str, Any]) -> str:
    """Loss, gradient norm and how accurately the lower level was solved: gap, else residual."""
    text = f"loss {record['loss']:.5g}  gradient {record['grad_norm']:.1e}"
    reached = [record[k] for k in ("gap", "residual") if record.get(k) is not None]
    return f"{text}  lower level {reached[0]:.0e}" if reached else text
