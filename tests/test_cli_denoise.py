"""bilevel denoise: what it does, what it says, what it refuses."""

import io
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import bilevel_cli
from bilevel.tasks import images
from command_line import bilevel, psnr, said
from photos import cartoon, write_photos


@pytest.mark.parametrize("how", [["--model", "run"], ["--weight", "0.1"]], ids=["model", "weight"])
def test_denoise_a_colour_image(here, how):
    result = bilevel("denoise", "noisy.png", "-o", "out.png", *how)
    assert result.exit_code == 0, result.output
    clean = here / "photos" / "a1.png"
    assert psnr(here / "out.png", clean) > psnr(here / "noisy.png", clean) + 4
    assert ("estimated" in result.output) == (how[0] == "--model")


def test_denoise_takes_the_noise_it_is_told(here):
    for noise, name in ((10, "weak.png"), (40, "strong.png")):
        bilevel("denoise", "noisy.png", "-o", name, "--model", "run", "--noise", noise)
    weak, strong, seen = (
        images.read(here / n).pixels for n in ("weak.png", "strong.png", "noisy.png")
    )
    assert abs(strong - seen).mean() > 1.2 * abs(weak - seen).mean()


def test_denoise_a_folder_and_what_is_in_the_way(here):
    folder = write_photos(here / "mixed")
    (folder / "broken.tif").write_bytes(b"junk")
    result = bilevel("denoise", "mixed", "-o", "out", "--weight", "0.1")
    assert result.exit_code == 0, result.output
    assert re.search("Warning: Skipped: mixed/broken.tif could not be read", said(result))
    assert {p.name for p in (here / "out").iterdir()} == {"a0.png", "a1.png", "a2.png"}
    result = bilevel("denoise", "mixed", "-o", "out", "--weight", "0.1")
    assert result.exit_code == 1 and "a0.png exists. Choose another, or overwrite" in said(result)
    assert bilevel("denoise", "mixed", "-o", "out", "--weight", "0.1", "--force").exit_code == 0


def test_denoise_without_output_writes_beside(here):
    assert bilevel("denoise", "noisy.png", "--weight", "0.1").exit_code == 0
    assert (here / "noisy_denoised.png").exists()


def test_denoise_keeps_sixteen_bits(here):
    pixels = cartoon(16)
    image = images.Image(pixels, images.Kind(np.dtype(np.uint16)))
    images.write(here / "deep.tif", image)
    bilevel("denoise", "deep.tif", "-o", "out.tif", "--weight", "0.05")
    assert images.read(here / "out.tif").kind.dtype == np.uint16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["noisy.png", "--model", "run", "--weight", "1"], "Give one of --model RUN and --weight"),
        (["noisy.png", "--weight", "-1"], "--weight is -1: give a number > 0"),
        (["noisy.png", "--weight", "nan"], "--weight is nan: give a number > 0"),
        (["noisy.png", "--weight", "1e-60"], "--weight is 1e-60: give a number > 0"),
        (["noisy.png", "--noise", "1e300"], r"--noise is 1e\+300: give .* 2550 at most"),
        (["nix.png", "--weight", "0.1", "-o", "flat.png", "--force"], "nix.png does not exist"),
        (
            ["noisy.png", "--model", "run", "--noise", "0"],
            "--noise is 0: give a standard deviation",
        ),
        (["nix.png", "--weight", "0.1"], "nix.png does not exist. Give an image file"),
        (["noisy.png", "--weight", "0.1", "-o", "a/b.png"], "output folder a does not exist"),
        (["noisy.png", "--weight", "0.1", "-o", "b.gif"], "b.gif is not of a known kind"),
        (["noisy.png", "--weight", "0.1", "-o", "noisy.png", "--force"], "is the input. Choose"),
        (["noisy.png", "--model", "photos"], "photos holds no config.toml"),
        (
            ["noisy.png", "photos/a0.png", "--weight", "0.1", "-o", "run/config.toml"],
            "is a file; 2",
        ),
        (["photos", "./photos", "--weight", "0.1", "-o", "o"], "Two images would both be written"),
        (["flat.png", "--model", "run", "-o", "o.png"], "flat.png: no noise was found in it"),
    ],
)
def test_denoise_says_what_is_wrong(here, arguments, message):
    flat = images.Image(np.full((16, 16), 0.5), images.Kind(np.dtype(np.uint8)))
    images.write(here / "flat.png", flat)
    result = bilevel("denoise", *arguments)
    assert result.exit_code == 1 and re.search(f"Error: .*{message}", said(result)), result.output
    assert "Traceback" not in result.output


def test_a_name_that_no_terminal_can_show(here, monkeypatch):
    """Its bytes are no UTF-8, and standard output takes ASCII only."""
    name, screen = os.fsdecode(b"na\xefve.png"), io.TextIOWrapper(io.BytesIO(), "ascii")
    shutil.copy("noisy.png", name)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "argv", ["bilevel", "denoise", name, "--weight", "0.1"])
    with pytest.raises(SystemExit, match="0"):
        bilevel_cli.main()
    screen.flush()
    assert rb"na\udcefve_denoised.png" in screen.buffer.getvalue()
    assert Path(os.fsdecode(b"na\xefve_denoised.html")).exists()


def test_denoise_when_no_image_is_good(here):
    (here / "bad").mkdir()
    for name in "ab":
        (here / "bad" / f"{name}.png").write_bytes(b"junk")
    result = bilevel("denoise", "bad", "-o", "out", "--weight", "0.1")
    assert result.exit_code == 1
    assert "Error: None of the 2 images could be denoised" in said(result)


def test_an_image_without_noise_does_not_end_a_folder(here):
    flat = images.Image(np.full((16, 16), 0.5), images.Kind(np.dtype(np.uint8)))
    images.write(here / "flat.png", flat)
    result = bilevel("denoise", "flat.png", "noisy.png", "-o", "out", "--model", "run")
    assert result.exit_code == 0, result.output
    assert "Warning: Skipped: flat.png: no noise was found" in said(result)
    assert [p.name for p in (here / "out").iterdir()] == ["noisy.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weight", "0.6"], "--weight is 0.6, which leaves little of an image"),
        (["--weight", "0.1", "--noise", "25"], "With a --weight the --noise plays no part"),
        (["--model", "run", "--noise", "90"], r"noise of 90.0 lies outside .* \(5:50\)"),
    ],
)
def test_denoise_warns(here, arguments, message):
    result = bilevel("denoise", "noisy.png", "-o", "out.png", *arguments)
    assert result.exit_code == 0 and re.search(f"Warning: .*{message}", said(result))
