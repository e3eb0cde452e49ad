"""Image files: what is read is written back in the same kind, and bad files are named."""

import errno
import os
import pickle
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from bilevel.tasks import images
from bilevel.tasks.images import ImageError

LOSSLESS = [
    (suffix, dtype, channels)
    for suffix, dtypes in {
        ".png": ("uint8", "uint16"),
        ".tif": ("uint8", "uint16", "float16", "float32", "float64"),
        ".npy": ("uint8", "uint16", "float32", "float64"),
    }.items()
    for dtype in dtypes
    for channels in (1, 2, 3, 4)
    if not (suffix == ".tif" and channels == 2)  # tifffile reads gray + alpha as two samples only
]


def random_array(dtype, channels=1, shape=(7, 5), seed=0):
    rng = np.random.default_rng(seed)
    full = shape if channels == 1 else (*shape, channels)
    if np.dtype(dtype).kind == "f":
        return rng.random(full).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, full, endpoint=True, dtype=dtype)


def save(path, array):
    """By other means than the code under test."""
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix in (".tif", ".tiff"):
        kind = "rgb" if array.ndim == 3 and array.shape[2] > 2 else "minisblack"
        tifffile.imwrite(path, array, photometric=kind)
    elif array.dtype == np.uint16 or (array.ndim == 3 and array.shape[2] == 2):
        path.write_bytes(png(array))
    else:
        Pillow.fromarray(array).save(path)
    return path


def png(array, shape=None):
    """A PNG by its specification: one IDAT, no filter; shape is what the header claims."""
    channels = 1 if array.ndim == 2 else array.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    height, width = shape or array.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8 * array.itemsize, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(array.dtype.newbyteorder(">")).tobytes() for row in array)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks
    )


@pytest.mark.parametrize(("suffix", "dtype", "channels"), LOSSLESS)
def test_same_kind_comes_back(tmp_path, suffix, dtype, channels):
    array = random_array(dtype, channels)
    image = images.read(save(tmp_path / f"in{suffix}", array))
    white = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    seen = array[..., 0] if channels == 2 else array[..., :3] if channels == 4 else array
    np.testing.assert_allclose(image.pixels, seen / np.float64(white), rtol=1e-15)
    images.write(tmp_path / f"out{suffix}", image.with_channels(image.channels.copy()))
    back = images.READERS[suffix](tmp_path / f"out{suffix}")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_jpeg_gray_and_colour(tmp_path):
    for channels in (1, 3):
        smooth = np.linspace(0, 255, 64).astype(np.uint8).reshape(1, 64).repeat(48, 0)
        array = smooth if channels == 1 else np.dstack([smooth] * 3)
        image = images.read(save(tmp_path / f"in{channels}.jpg", array))
        images.write(tmp_path / f"out{channels}.jpg", image)
        back = images.read(tmp_path / f"out{channels}.jpg")
        assert back.pixels.shape == array.shape
        assert abs(back.pixels - array / 255).max() < 0.02  # quality 95, measured 0.008


def test_jpeg_is_turned_upright(tmp_path):
    exif = Pillow.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to see it"
    Pillow.new("L", (20, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert images.read(tmp_path / "a.jpg").pixels.shape == (20, 10)


@pytest.mark.parametrize("compression", ["lzw", "deflate"])
def test_compressed_and_planar_tiff(tmp_path, compression):
    array = random_array("uint16", 3)
    planar = np.moveaxis(array, -1, 0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        planar,
        photometric="rgb",
        planarconfig="separate",
        compression=compression,
    )
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels * 65535, array)


def test_inverted_tiff(tmp_path):
    array = random_array("uint8")
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="miniswhite")
    np.testing.assert_allclose(images.read(tmp_path / "a.tif").pixels, 1 - array / 255, atol=1e-15)


def test_one_bit(tmp_path):
    """Masks of NumPy, and scanned pages, whose 0 may be white."""
    mask = random_array("uint8") > 99
    np.save(tmp_path / "mask.npy", mask)
    for kind in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / f"{kind}.tif", mask, photometric=kind)
    for name, seen in {"mask.npy": mask, "minisblack.tif": mask, "miniswhite.tif": ~mask}.items():
        image = images.read(tmp_path / name)
        assert image.kind.dtype == np.uint8
        np.testing.assert_array_equal(image.pixels, seen)


@pytest.mark.parametrize(
    ("kind", "colours"), [("CMYK", "SEPARATED"), ("LAB", "CIELAB"), ("P", "PALETTE")]
)
def test_colours_that_are_neither_gray_nor_rgb(tmp_path, kind, colours):
    """CMYK was read as RGB with alpha."""
    Pillow.fromarray(random_array("uint8", 3)).convert(kind).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=f"a.tif has colours as {colours}. Convert it to gray"):
        images.read(tmp_path / "a.tif")


def test_other_suffix_takes_the_nearest_kind(tmp_path):
    image = images.read(save(tmp_path / "a.npy", random_array("float32")))
    images.write(tmp_path / "a.png", image)
    assert images.read(tmp_path / "a.png").kind.dtype == np.uint16
    images.write(tmp_path / "a.jpg", image)
    assert images.read(tmp_path / "a.jpg").kind.dtype == np.uint8


def test_values_beyond_white_are_clipped_only_in_integers(tmp_path):
    pixels = np.array([[-0.25, 0.5], [1.0, 1.25]])
    for dtype, expected in (("uint8", [[0, 128], [255, 255]]), ("float32", pixels)):
        image = images.Image(pixels, images.Kind(np.dtype(dtype)))
        images.write(tmp_path / f"{dtype}.npy", image)
        np.testing.assert_array_equal(np.load(tmp_path / f"{dtype}.npy"), expected)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(["uint8", "uint16"]), st.sampled_from([1, 3]), st.integers(0, 99))
def test_channels_and_back(dtype, channels, seed):
    image = images._from_array(random_array(dtype, channels, (3, 4), seed))
    assert image.channels.shape == (channels, 3, 4)
    np.testing.assert_array_equal(image.with_channels(image.channels).pixels, image.pixels)
    assert image.gray().shape == (3, 4)


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


BAD = {
    "cut.png": (lambda: png(random_array("uint8", 3))[:-30], "could not be read as PNG"),
    "huge.png": (lambda: png(random_array("uint8"), (2**16, 2**16)), "claims the shape"),
    "text.png": (lambda: b"hello", "could not be read as PNG"),
    "empty.tif": (lambda: b"", "could not be read as TIF"),
    "cut.jpg": (lambda: b"\xff\xd8\xff\xe0", "could not be read as JPG"),
    "evil.npy": (lambda: pickle.dumps(Evil()), "could not be read as NPY.*pickle"),
    "strange.gif": (lambda: b"GIF89a", "not of a known kind. Use one of .png"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    content, message = BAD[name]
    (tmp_path / name).write_bytes(content())
    with pytest.raises(ImageError, match=f"{name}.*{message}"):
        images.read(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


BAD_ARRAYS = {
    "nan": (np.full((3, 4), np.nan), "12 values that are NaN or infinite"),
    "inf": (np.array([[0.0, np.inf]]), "1 values that are NaN or infinite"),
    "range": (np.array([[0.0, 255.0]]), "float values from 0 to 255; 0 must be black and 1 white"),
    "int64": (np.zeros((3, 4), int), "values of type int64.*Save it as uint8"),
    "rank": (np.zeros(4), r"shape \(4,\); \(H, W\) for gray"),
    "stack": (np.zeros((9, 3, 9)), r"shape \(9, 3, 9\); \(H, W\) for gray"),
    "empty": (np.zeros((0, 4)), "empty shape"),
    "object": (np.array([[None]]), "could not be read as NPY.*[Oo]bject"),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_named(tmp_path, name):
    array, message = BAD_ARRAYS[name]
    np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
    with pytest.raises(ImageError, match=f"{name}.npy.*{message}"):
        images.read(tmp_path / f"{name}.npy")


def test_npy_that_claims_too_much(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4), np.uint8))
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"(4, 4), }", b"(9999,9999)}", 1))
    with pytest.raises(ImageError, match="a.npy could not be read as NPY"):
        images.read(tmp_path / "a.npy")


def test_stack_of_images_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 5, 7), np.uint8), photometric="minisblack")
    with pytest.raises(ImageError, match="a.tif holds .*Save the slices as single files"):
        images.read(tmp_path / "a.tif")


def test_folder_skips_bad_files_and_says_so(tmp_path):
    save(tmp_path / "b.png", random_array("uint8"))
    (tmp_path / "a.png").write_bytes(b"junk")
    (tmp_path / ".hidden.png").write_bytes(b"junk")
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match="Skipped: .*a.png could not be read") as caught:
        found = images.read_all(images.scan(tmp_path))
    assert [image.path.name for image in found] == ["b.png"] and len(caught) == 1


def test_folder_without_a_readable_image(tmp_path):
    (tmp_path / "a.png").write_bytes(b"junk")
    with (
        pytest.warns(UserWarning, match="Skipped"),
        pytest.raises(ImageError, match="None of the 1 image files is readable. First: .*a.png"),
    ):
        images.read_all(images.scan(tmp_path))


def test_folder_empty_absent_or_a_file(tmp_path):
    with pytest.raises(ImageError, match="holds no image file .* among its 0 entries"):
        images.scan(tmp_path)
    with pytest.raises(ImageError, match="does not exist. Give a folder"):
        images.scan(tmp_path / "nowhere")
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ImageError, match="is a file. Give a folder"):
        images.scan(tmp_path / "a.png")
    with pytest.raises(ImageError, match="nowhere.png does not exist"):
        images.read(tmp_path / "nowhere.png")


def test_output_is_not_overwritten_unless_forced(tmp_path):
    image = images._from_array(random_array("uint8"))
    images.write(tmp_path / "a.png", image)
    before = (tmp_path / "a.png").read_bytes()
    darker = images.Image(image.pixels / 2, image.kind)
    with pytest.raises(ImageError, match="a.png exists. .*overwrite with --force"):
        images.write(tmp_path / "a.png", darker)
    assert (tmp_path / "a.png").read_bytes() == before
    images.write(tmp_path / "a.png", darker, force=True)
    assert (tmp_path / "a.png").read_bytes() != before


def test_output_that_cannot_be(tmp_path):
    image = images._from_array(random_array("uint8"))
    with pytest.raises(ImageError, match="nowhere does not exist. Create it first"):
        images.write(tmp_path / "nowhere" / "a.png", image)
    with pytest.raises(ImageError, match="a.gif is not of a known kind"):
        images.write(tmp_path / "a.gif", image)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(ImageError, match="a.png is a folder"):
        images.write(tmp_path / "a.png", image, force=True)


def test_read_only_folder(tmp_path, monkeypatch):
    # the check is asked, not the disk: a superuser may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ImageError, match="is not writable. Choose another"):
        images.write(tmp_path / "a.png", images._from_array(random_array("uint8")))


def test_full_disk_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    image = images._from_array(random_array("uint8"))
    images.write(tmp_path / "a.png", image)
    before = (tmp_path / "a.png").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="Cannot write .*a.png: No space left on device"):
        images.write(tmp_path / "a.png", image, force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before
