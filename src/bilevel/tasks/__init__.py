"""What the command line offers: files, tasks, and the models that come with the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODELS = Path(__file__).parent / "models"  # run folders without their history
TASKS = ("denoise", "deblur", "dequantize", "segment")  # the names of the commands, too


def check_task(run: str | Path, config: Mapping[str, Any], *wanted: str) -> None:
    """Refuse the run folder of another task, and name its command."""
    task = config.get("task")
    if task in TASKS and task not in wanted:
        raise ValueError(
            f"{run} is a run of the task {task!r}, not of {' or '.join(map(repr, wanted))}. Use "
            f"bilevel {task}, or another run."
        )
