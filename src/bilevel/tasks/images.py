"""Image files: read as floats in [0, 1], write back in the kind that was read.

PNG and TIFF with 8 or 16 bits, JPEG, float TIFF, NPY; gray or colour. An alpha channel is kept
aside and written back. Files of a folder that cannot be read are skipped with a warning.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bilevel.learning.checkpoint import write_bytes

MAX_VALUES = 2**28  # a header of a few bytes may claim any size: refuse before allocating
FLOAT_RANGE = (-1.0, 2.0)  # noise may leave [0, 1]; values beyond this are in other units


class ImageError(ValueError):
    """An image that cannot be read, used or written; the message names the file."""


@dataclass(frozen=True)
class Kind:
    """How the values of an image were stored."""

    dtype: np.dtype  # uint8, uint16 or a float type
    alpha: np.ndarray | None = None  # (H, W), as stored

    @property
    def white(self) -> float:
        """The stored value that means 1."""
        return float(np.iinfo(self.dtype).max) if self.dtype.kind == "u" else 1.0


@dataclass(frozen=True)
class Image:
    pixels: np.ndarray  # (H, W) gray or (H, W, 3) colour, float64, 0 is black and 1 is white
    kind: Kind
    path: Path | None = None

    @property
    def channels(self) -> np.ndarray:
        """(C, H, W) with C = 1 or 3."""
        return self.pixels[None] if self.pixels.ndim == 2 else np.moveaxis(self.pixels, -1, 0)

    def with_channels(self, channels: np.ndarray) -> Image:  # (C, H, W)
        pixels = channels[0] if self.pixels.ndim == 2 else np.moveaxis(channels, 0, -1)
        return replace(self, pixels=pixels)

    def gray(self) -> np.ndarray:
        """(H, W): the luminance of a colour image (ITU-R BT.709, as in scikit-image)."""
        return self.pixels if self.pixels.ndim == 2 else self.pixels @ (0.2125, 0.7154, 0.0721)


# ---------------------------------------------------------------------------------------- read


def _check_size(*shape: int) -> None:
    if min(shape) < 1:
        raise ImageError(f"has the empty shape {shape}.")
    if np.prod(shape, dtype=np.int64) > MAX_VALUES:
        raise ImageError(f"claims the shape {shape}: more than {MAX_VALUES} values. Cut it first.")


def _read_png(path: Path) -> np.ndarray:
    import imagecodecs  # Pillow cuts colour PNGs with 16 bits down to 8 without a word

    data = path.read_bytes()
    if data[12:16] == b"IHDR" and len(data) >= 24:
        _check_size(*struct.unpack(">II", data[16:24])[::-1])
    return imagecodecs.png_decode(data)


def _read_jpeg(path: Path) -> np.ndarray:
    from PIL import Image as Pillow
    from PIL import ImageOps

    with Pillow.open(path, formats=["JPEG"]) as picture:
        _check_size(picture.height, picture.width)
        upright = ImageOps.exif_transpose(picture)
        return np.asarray(upright if upright.mode in ("L", "RGB") else upright.convert("RGB"))


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series, page = file.series[0], file.pages.first
        _check_size(*series.shape)
        if len(file.series) > 1 or series.axes not in ("YX", "YXS", "SYX"):
            raise ImageError(
                f"holds {len(file.series)} image(s) of shape {series.shape} ({series.axes}); "
                "one gray or colour image is needed. Save the slices as single files."
            )
        kinds, kind = tifffile.PHOTOMETRIC, page.photometric
        as_rgb = kind == kinds.YCBCR and page.compression == tifffile.COMPRESSION.JPEG
        if kind not in (kinds.MINISBLACK, kinds.MINISWHITE, kinds.RGB) and not as_rgb:
            raise ImageError(f"has colours as {kinds(kind).name}. Convert it to gray or RGB.")
        array = series.asarray()
        if series.axes == "SYX":
            array = np.moveaxis(array, 0, -1)
        if kind == kinds.MINISWHITE:
            white = np.iinfo(array.dtype).max if array.dtype.kind == "u" else 1
            array = (white - array).astype(array.dtype)
    return array


def _read_npy(path: Path) -> np.ndarray:
    # mapped, so that a header which claims too much fails before memory is asked for
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray):
        array.close()
        raise ImageError("is an archive of arrays. Save one array with numpy.save.")
    _check_size(*array.shape)
    return np.array(array)


READERS: dict[str, Callable[[Path], np.ndarray]] = {
    ".png": _read_png,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".jpg": _read_jpeg,
    ".jpeg": _read_jpeg,
    ".npy": _read_npy,
}


def read(path: str | Path) -> Image:
    """The image in the file, or an ImageError that says why not."""
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ImageError(f"{path} {what}. Give an image file ({_suffixes()}).")
    if reader is None:
        raise ImageError(f"{path} is not of a known kind. Use one of {_suffixes()}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a decoder's warning: damaged, or unreasonably large
            return replace(_from_array(reader(path)), path=path)
    except ImageError as error:
        raise ImageError(f"{path} {error}") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise ImageError(
            f"{path} could not be read as {path.suffix.lower()[1:].upper()} "
            f"({type(error).__name__}: {error}). Save it again, or leave it out."
        ) from error


def _from_array(array: np.ndarray) -> Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (2, 3, 4)):
        raise ImageError(
            f"has the shape {array.shape}; (H, W) for gray or (H, W, 3) for colour is needed."
        )
    _check_size(*array.shape)
    if array.dtype == bool:  # masks, and pages with one bit
        array = array * np.uint8(255)
    alpha = None
    if array.ndim == 3 and array.shape[2] != 3:  # gray or colour, and alpha
        alpha, array = array[..., -1], array[..., 0] if array.shape[2] == 2 else array[..., :3]
    if array.dtype not in (np.uint8, np.uint16) and array.dtype.kind != "f":
        raise ImageError(
            f"has values of type {array.dtype}, whose white is unknown. "
            "Save it as uint8, as uint16, or as float with 1 for white."
        )
    kind = Kind(array.dtype, alpha)
    pixels = array.astype(np.float64) / kind.white
    if not np.isfinite(pixels).all():
        raise ImageError(f"has {(~np.isfinite(pixels)).sum()} values that are NaN or infinite.")
    low, high = pixels.min(), pixels.max()
    if low < FLOAT_RANGE[0] or high > FLOAT_RANGE[1]:
        raise ImageError(
            f"has float values from {low:g} to {high:g}; 0 must be black and 1 white. "
            "Divide it by its white value."
        )
    return Image(pixels, kind)


def scan(folder: str | Path) -> list[Path]:
    """The image files of the folder, by name; names that start with a dot are left out."""
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ImageError(f"The image folder {folder} {what}. Give a folder that holds images.")
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"The image folder {folder} cannot be listed: {error.strerror}.") from None
    paths = [p for p in names if p.suffix.lower() in READERS and not p.name.startswith(".")]
    if not paths:
        raise ImageError(
            f"The image folder {folder} holds no image file ({_suffixes()}) "
            f"among its {len(names)} entries. Give a folder that holds images."
        )
    return paths


def read_all(paths: Iterable[Path]) -> list[Image]:
    """The images that can be read; a warning for each other one; an error if none is left."""
    images, reasons = [], []
    for path in paths:
        try:
            images.append(read(path))
        except ImageError as error:
            reasons.append(str(error))
            warnings.warn(f"Skipped: {error}", stacklevel=2)
    if not images:
        raise ImageError(f"None of the {len(reasons)} image files is readable. First: {reasons[0]}")
    return images


# --------------------------------------------------------------------------------------- write


def write(path: str | Path, image: Image, force: bool = False) -> None:
    """Writes in the format that the suffix names, with the bits that were read if it has them.

    Complete or not at all.
    """
    path = Path(path)
    check_writable(path, force)
    suffix = path.suffix.lower()
    write_bytes(path, _encode(suffix, _to_array(image, _storable(image.kind, suffix))))


def check_writable(path: Path, force: bool = False) -> None:
    """Before the long work: the suffix is known, the folder is there, no file is in the way."""
    if path.suffix.lower() not in READERS:
        raise ImageError(f"The output {path} is not of a known kind. Use one of {_suffixes()}.")
    check_free(path, force)


def check_free(path: Path, force: bool = False) -> None:
    """As `check_writable`, for a file of any kind."""
    if not path.parent.is_dir():
        raise ImageError(f"The output folder {path.parent} does not exist. Create it first.")
    if not os.access(path.parent, os.W_OK):
        raise ImageError(f"The output folder {path.parent} is not writable. Choose another.")
    if path.is_dir():
        raise ImageError(f"The output {path} is a folder. Give a file name.")
    if path.exists() and not force:
        raise ImageError(f"The output {path} exists. Choose another, or overwrite with --force.")


def _storable(kind: Kind, suffix: str) -> np.dtype:
    """The dtype in the file: as read where the format has it, else the nearest that it has."""
    if suffix in (".jpg", ".jpeg"):
        return np.dtype(np.uint8)
    if suffix == ".png" and kind.dtype.kind == "f":
        return np.dtype(np.uint16)
    return kind.dtype


def _to_array(image: Image, dtype: np.dtype) -> np.ndarray:
    kind = Kind(dtype)
    if dtype.kind == "u":
        array = np.rint(image.pixels.clip(0, 1) * kind.white).astype(dtype)
    else:
        array = image.pixels.astype(dtype)
    if image.kind.alpha is None:
        return array
    alpha = image.kind.alpha.astype(np.float64) / image.kind.white * kind.white
    return np.dstack((array, (np.rint(alpha) if dtype.kind == "u" else alpha).astype(dtype)))


def _encode(suffix: str, array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    if suffix == ".png":
        import imagecodecs

        return bytes(imagecodecs.png_encode(np.ascontiguousarray(array)))
    if suffix in (".tif", ".tiff"):
        import tifffile

        extra: Sequence[str] = ["unassalpha"] if array.ndim == 3 and array.shape[2] != 3 else []
        kind = "rgb" if array.ndim == 3 and array.shape[2] >= 3 else "minisblack"
        layout = "contig" if array.ndim == 3 else None
        tifffile.imwrite(
            stream, array, photometric=kind, planarconfig=layout, extrasamples=extra, metadata=None
        )
    elif suffix in (".jpg", ".jpeg"):
        from PIL import Image as Pillow

        opaque = (
            array if array.ndim == 2 else array[..., :3] if array.shape[2] > 2 else array[..., 0]
        )
        Pillow.fromarray(opaque).save(stream, "JPEG", quality=95, subsampling=0)
    else:
        np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def _suffixes() -> str:
    return ", ".join(READERS)
