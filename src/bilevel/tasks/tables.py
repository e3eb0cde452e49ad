"""Tables in a run folder: CSV files, and folders that appear complete or not at all."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bilevel.learning.checkpoint import write_bytes


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that takes the place of `folder` at the end, unless there is an error."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_bytes(path, text.getvalue().encode())


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows; none where there is no file."""
    if not path.exists():
        return []
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    if reader.fieldnames != list(columns):
        raise ValueError(f"{path} has the columns {reader.fieldnames}, not {list(columns)}.")
    return list(reader)
