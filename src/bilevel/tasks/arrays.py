"""NPY files in and out: one array each, never a pickle."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from bilevel.learning.checkpoint import write_bytes
from bilevel.tasks.images import check_free


class ArrayError(ValueError):
    """An array that cannot be read or written; the message names the file."""


def read(path: Path) -> np.ndarray:
    """Real numbers. The file is mapped first: a header that claims too much fails before memory is
    asked for."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ArrayError(f"{path} {what}. Give an NPY file.")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # damaged files raise nearly anything
        raise ArrayError(
            f"{path} could not be read as NPY ({type(error).__name__}: {error}). "
            "Save one array of numbers with numpy.save."
        ) from None
    if not isinstance(array, np.ndarray):
        array.close()
        raise ArrayError(f"{path} is an archive of arrays. Save one array with numpy.save.")
    if array.dtype.kind not in "biuf":
        raise ArrayError(f"{path} holds {array.dtype}. Save real numbers.")
    return np.array(array)


def write(path: Path, array: np.ndarray, force: bool = False) -> None:
    """Complete or not at all."""
    check_writable(path, force)
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    write_bytes(path, stream.getvalue())


def check_writable(path: Path, force: bool = False) -> None:
    """Before the long work: the suffix is right, the folder is there, no file is in the way."""
    if path.suffix.lower() != ".npy":
        raise ArrayError(f"The output {path} is not an NPY file. Name it NAME.npy.")
    check_free(path, force)
