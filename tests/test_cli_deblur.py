"""bilevel deblur, learn deblur, inpaint: what they do, what they say, what they refuse."""

import re

import numpy as np
import pytest

from bilevel import learning
from bilevel.tasks import data, images
from bilevel.tasks.deblur import Deblur
from bilevel.tasks.images import Image, Kind
from command_line import bilevel, psnr, said
from photos import cartoon

LEARN = [
    *("learn", "deblur", "--images", "photos", "--kernel", "gaussian:0.6", "--noise", "20"),
    *("--crop", "12", "--crops", "2", "--steps", "1"),
]


def write(path, pixels, dtype=np.uint8):
    images.write(path, Image(pixels, Kind(np.dtype(dtype))), force=True)


@pytest.fixture
def blurred(here):
    """blurred.png, its kernel k.npy, the clean.png that it shows, and mask.png of its size."""
    clean, kernel = cartoon(24, colour=True), np.arange(1.0, 10).reshape(3, 3)
    np.save(here / "k.npy", kernel)
    task, channels = Deblur((str(here / "k.npy"),)), np.moveaxis(clean, -1, 0)
    seen = data.noisy(task.see(channels), 1, np.random.default_rng(0))
    for name, values in (("blurred", seen), ("clean", task.target(channels))):
        write(here / f"{name}.png", np.moveaxis(values, 0, -1))
    mask = np.zeros((22, 22))
    mask[5:9, 3:15] = 1
    write(here / "mask.png", mask)
    write(here / "large.png", np.pad(mask, 2))
    return here


def test_deblur_a_colour_image(blurred):
    for how, better in ((["--weight", "0.001"], 6), (["--noise", "1"], 4)):  # a weight for it
        options = ["--kernel", "k.npy", *how, "-o", "out.png", "--force", "--no-report"]
        result = bilevel("deblur", "blurred.png", *options)
        assert result.exit_code == 0, result.output
        assert psnr("out.png", "clean.png") > psnr("blurred.png", "clean.png") + better


def test_deblur_names_its_results(blurred):
    result = bilevel("deblur", "blurred.png", "--kernel", "gaussian:0.8", "--weight", "0.01")
    assert result.exit_code == 0 and (blurred / "blurred_deblurred.png").exists()
    again = bilevel("deblur", "blurred.png", "--kernel", "gaussian:0.8", "--weight", "0.01")
    assert again.exit_code == 1 and "exists. Choose another, or overwrite" in said(again)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--kernel", "k.npy", "--model", "run", "--weight", "1"], "Give one of --model RUN and"),
        (["--kernel", "nix.npy", "--weight", "0.1"], "kernel file nix.npy does not exist"),
        (["--kernel", "junk.npz", "--weight", "0.1"], "kernel file junk.npz could not be read"),
        (["--kernel", "bomb.npz", "--weight", "0.1"], r"bomb.npz could .* larger than 1001 x 1001"),
        (["--kernel", "gaussian:x", "--weight", "0.1"], "write gaussian:SIGMA"),
        (["--kernel", "gaussian:9", "--weight", "0.1"], r"a kernel .*larger than the image"),
        (["--kernel", "k.npy", "--model", "run"], "run is a run of the task 'denoise', not of 'de"),
    ],
)
def test_deblur_says_what_is_wrong(blurred, arguments, message):
    (blurred / "junk.npz").write_bytes(b"PK junk")
    np.savez_compressed(blurred / "bomb.npz", k=np.zeros((1001, 1200)))
    result = bilevel("deblur", "blurred.png", "-o", "out.png", *arguments)
    assert result.exit_code == 1 and re.search(f"Error: .*{message}", said(result)), result.output


def test_a_deblurring_run_from_beginning_to_end(blurred, short_slider):
    result = bilevel(*LEARN, "--out", "sharp")
    assert result.exit_code == 0, result.output
    assert "bilevel deblur IN --kernel K -o OUT --model sharp" in said(result)
    config = learning.read_config("sharp")
    assert config["task"] == "deblur" and config["data"]["kernel"] == ["gaussian:0.6"]
    told = bilevel("info", "sharp")
    assert "a deblurer" in told.output and "gaussian:0.6" in told.output
    use = ["blurred.png", "--kernel", "k.npy", "--model", "sharp", "-o", "o.png", "--no-report"]
    assert bilevel("deblur", *use).exit_code == 0
    wrong = bilevel("denoise", "blurred.png", "--model", "sharp", "-o", "p.png")
    assert wrong.exit_code == 1 and "is a run of the task 'deblur'" in said(wrong)
    judged = bilevel("evaluate", "sharp", "--images", "photos")
    assert judged.exit_code == 0, judged.output
    for method in ("noisy", "TV, grid search", "TV, learned", "Wiener", "Richardson-Lucy"):
        assert method in judged.output
    assert "A deblurer learned from 2 crops" in (blurred / "sharp" / "report.html").read_text()


def test_learn_deblur_refuses(blurred):
    no_kernel = bilevel("learn", "deblur", "--images", "photos", "--out", "new")
    assert no_kernel.exit_code == 1 and "No kernel. Name one with --kernel" in said(no_kernel)
    other = bilevel("learn", "deblur", "--out", "run", "--resume")
    assert other.exit_code == 1
    assert "of the task 'denoise', not of 'deblur'. Resume it with bilevel learn den" in said(other)
    large = bilevel(*LEARN, "--kernel", "gaussian:9", "--out", "new")
    assert large.exit_code == 1 and "smaller than a crop of 66 x 66" in said(large)


def test_evaluate_takes_a_kernel_only_where_there_is_one(here):
    result = bilevel("evaluate", "run", "--images", "photos", "--kernel", "gaussian:1")
    assert result.exit_code == 1 and "run is a denoiser: it takes no --kernel" in said(result)


# ------------------------------------------------------------------------------------- inpaint


def test_inpaint_keeps_the_known_pixels(blurred):
    result = bilevel("inpaint", "clean.png", "--mask", "mask.png", "-o", "out.png")
    assert result.exit_code == 0, result.output
    assert "9.9% filled in" in said(result)
    before, after, mask = (images.read(n).pixels for n in ("clean.png", "out.png", "mask.png"))
    assert (after[mask == 0] == before[mask == 0]).all() and (after != before).any()


def test_inpaint_does_not_read_the_missing_pixels(blurred):
    pixels, mask = images.read("clean.png").pixels, images.read("mask.png").pixels
    write(blurred / "holes.png", np.where(mask[..., None] > 0, 1.0, pixels))
    for name in ("clean", "holes"):
        bilevel("inpaint", f"{name}.png", "--mask", "mask.png", "-o", f"out_{name}.png")
    clean, holes = ((blurred / f"out_{n}.png").read_bytes() for n in ("clean", "holes"))
    assert clean == holes


def test_inpaint_with_a_weight_denoises_too(blurred):
    options = ["--mask", "mask.png", "--weight", "0.1", "-o", "out.png", "--no-report"]
    assert bilevel("inpaint", "clean.png", *options).exit_code == 0
    before, after, mask = (images.read(n).pixels for n in ("clean.png", "out.png", "mask.png"))
    assert (after[mask == 0] != before[mask == 0]).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mask", "nix.png"], "nix.png does not exist"),
        (["--mask", "large.png"], r"mask large.png has the size \(26, 26\), the image clean.png"),
        (["--mask", "mask.png", "--weight", "0"], "--weight is 0: give a number > 0"),
    ],
)
def test_inpaint_says_what_is_wrong(blurred, arguments, message):
    result = bilevel("inpaint", "clean.png", "-o", "out.png", *arguments)
    assert result.exit_code == 1 and re.search(f"Error: .*{message}", said(result)), result.output
