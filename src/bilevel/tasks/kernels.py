"""Blur kernels: files, and names of common ones.

photo/kernel.png       an image, gray; its values are divided by their sum
kernel.npy, k.npz:k3   an array; an archive of several arrays without ":NAME" means all of them
gaussian:2             a Gaussian with a standard deviation of 2 pixels
motion:15:30           a straight motion of 15 pixels, 30 degrees above the horizontal
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from bilevel.tasks import arrays, images
from bilevel.tasks.images import ImageError

LARGEST = 1001  # pixels a side


def resolve(text: str) -> str:
    """The same kernel, seen from every folder: the path of a file made absolute."""
    if _named(text) is not None:
        return text
    path, _, entry = _parted(text)
    return f"{Path(path).resolve()}:{entry}" if entry else str(Path(path).resolve())


def read_all(texts: Iterable[str]) -> list[np.ndarray]:
    return [kernel for text in texts for kernel in read(text)]


def read_one(text: str) -> np.ndarray:
    found = read(text)
    if len(found) > 1:
        raise ImageError(
            f"The kernel {text} is {len(found)} kernels. Name one of them: {text}:NAME."
        )
    return found[0]


def read(text: str) -> list[np.ndarray]:
    """The kernels of a name or a file: not negative, with the sum 1."""
    named = _named(text)
    if named is not None:
        return [named]
    path, suffix, entry = _parted(text)
    if suffix in (".npy", ".npz") and not Path(path).is_file():
        raise ImageError(f"The kernel file {path} does not exist. Check the path.")
    if suffix == ".npy":  # any real numbers: unlike an image, a kernel has no white
        try:
            return [_normalised(arrays.read(Path(path)), text)]
        except arrays.ArrayError as error:
            raise ImageError(
                f"The kernel {text} has no numbers: {error} Give a gray image or a real array "
                "(h, w)."
            ) from None
    if suffix != ".npz":
        return [_normalised(images.read(path).pixels, text)]
    archive = _archive(path)
    if entry and entry not in archive:
        raise ImageError(f"{path} has no array {entry!r}. It has {', '.join(archive)}.")
    chosen = {entry: archive[entry]} if entry else archive
    if not chosen:
        raise ImageError(f"The kernel file {path} holds no array.")
    return [_normalised(array, f"{path}:{name}") for name, array in chosen.items()]


def _parted(text: str) -> tuple[str, str, str]:
    """(path, suffix, name inside an archive)."""
    path, colon, entry = text.rpartition(":")
    if not colon or not path.lower().endswith(".npz"):
        path, entry = text, ""
    return path, Path(path).suffix.lower(), entry


def _archive(path: str) -> dict[str, np.ndarray]:
    """The arrays of an NPZ file; what would unpack to more than a kernel is not unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            large = [e.filename for e in archive.infolist() if e.file_size > 9 * LARGEST**2]
        if large:
            raise ValueError(f"{large[0]} is larger than {LARGEST} x {LARGEST} numbers")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # damaged files raise nearly anything
        raise ImageError(
            f"The kernel file {path} could not be read ({error}). Save it again with numpy.savez."
        ) from None


def _normalised(array: np.ndarray, text: str) -> np.ndarray:
    if array.ndim != 2 or array.dtype.kind not in "iufb" or not 0 < max(array.shape) <= LARGEST:
        raise ImageError(
            f"The kernel {text} has the shape {array.shape} and the type {array.dtype}. Give a "
            f"gray image or a real array (h, w), at most {LARGEST} a side."
        )
    kernel = array.astype(np.float64)
    if not np.isfinite(kernel).all() or kernel.min(initial=0) < 0 or not kernel.sum() > 0:
        raise ImageError(
            f"The kernel {text} has values from {kernel.min(initial=0):g} to "
            f"{kernel.max(initial=0):g}; they must be finite, at least 0, and not all 0."
        )
    return kernel / kernel.sum()


# --------------------------------------------------------------------------------------- names


def _named(text: str) -> np.ndarray | None:
    kind, *parts = text.split(":")
    if kind not in ("gaussian", "motion"):
        return None
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = []
    if kind == "gaussian" and len(numbers) == 1 and 0.1 <= numbers[0] <= 100:
        return gaussian(numbers[0])
    if kind == "motion" and len(numbers) == 2 and 1 <= numbers[0] <= 500 and _finite(numbers):
        return motion(*numbers)
    raise ImageError(
        f"The kernel is {text!r}: write gaussian:SIGMA (0.1 to 100 pixels), such as gaussian:2, or "
        "motion:LENGTH:DEGREES (1 to 500 pixels), such as motion:15:30, or name a file."
    )


def _finite(numbers: Iterable[float]) -> bool:
    return all(math.isfinite(number) for number in numbers)


def gaussian(sigma: float) -> np.ndarray:
    """Sampled to three standard deviations and more."""
    reach = math.ceil(3 * sigma)
    line = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    return np.outer(line, line) / line.sum() ** 2


def motion(length: float, degrees: float) -> np.ndarray:
    """A straight path at a constant speed, each of its points shared by the four nearest pixels."""
    angle, reach = math.radians(degrees), math.ceil((length - 1) / 2) + 1
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, 16 * math.ceil(length) + 1)
    rows, columns = reach - along * math.sin(angle), reach + along * math.cos(angle)
    kernel = np.zeros((2 * reach + 1,) * 2)
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    for i in (0, 1):
        for j in (0, 1):
            share = np.abs(1 - i - (rows - top)) * np.abs(1 - j - (columns - left))
            inside = (top + i <= 2 * reach) & (left + j <= 2 * reach)
            np.add.at(kernel, (top[inside] + i, left[inside] + j), share[inside])
    return kernel / kernel.sum()
