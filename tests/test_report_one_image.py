"""The page beside an image that was restored."""

import re

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.reports import one_image
from bilevel.tasks import images
from bilevel.tasks.deblur import Deblur
from bilevel.tasks.files import Restoration
from bilevel.tasks.images import Image, Kind
from bilevel.tasks.inpaint import Inpainter
from bilevel.tasks.restorer import Restored
from bilevel.tasks.shipped import ShippedDenoiser
from command_line import bilevel, said
from pages import Page, in_a_browser, needs_browser
from photos import cartoon


def written(name, pixels):
    images.write(name, Image(pixels, Kind(np.dtype(np.uint8))), force=True)


@pytest.fixture
def scratched(tmp_path, monkeypatch):
    """A working folder with a <photo>.png and mask.png."""
    monkeypatch.chdir(tmp_path)
    written("a <b>.png", cartoon(24, colour=True))
    mask = np.zeros((24, 24))
    mask[5:9, 3:15] = 1
    written("mask.png", mask)
    return tmp_path


def page(path):
    found = Page(path.read_text(encoding="utf-8"))
    found.assert_needs_nothing_else()
    assert all(len(image["alt"]) > 3 for image in found.all("img"))
    return found


def restored(name):
    """Of the slider: (weight, whether it is the one that was taken)."""
    frames = [image for image in name.all("img") if "data-value" in image]
    return [(float(f["data-value"]), "taken" in f["data-text"]) for f in frames]


def test_deblur_leaves_a_page(scratched, short_slider):
    options = ["--kernel", "gaussian:0.8", "--weight", "0.04", "-o", "sharp.png"]
    result = bilevel("deblur", "a <b>.png", *options)
    assert result.exit_code == 0 and "Report: sharp.html" in said(result), result.output
    found = page(scratched / "sharp.html")
    names = [image["alt"] for image in found.all("img")]
    for name in ("The image as given", "The result", "What has changed", "the kernel"):
        assert name in names
    assert "a <b>.png, deblurred" in found.text and "gaussian:0.8" in found.text
    assert restored(found) == [(0.04 * f, f == 1) for f in (0.5, 1, 2)]


@pytest.mark.parametrize(("weight", "frames"), [([], 0), (["--weight", "0.1"], 5)])
def test_inpaint_leaves_a_page(scratched, weight, frames):
    result = bilevel("inpaint", "a <b>.png", "--mask", "mask.png", *weight, "-o", "whole.png")
    assert result.exit_code == 0, result.output
    found = page(scratched / "whole.html")
    assert "what was missing" in found.text and "duality gap" in found.text
    assert len(restored(found)) == frames


@needs_browser
def test_the_slider_of_a_restored_image_in_a_browser(scratched, tmp_path):
    bilevel("denoise", "a <b>.png", "--weight", "0.1", "-o", "clean.png")
    dom = in_a_browser(scratched / "clean.html", 0.21, tmp_path)
    assert re.findall(r'data-text="([^"]*)">', dom) == ["weight 0.2"]
    assert 'class="control">' in dom  # the script shows it


def test_a_page_for_one_image_unless_told(scratched):
    written("c.png", cartoon(24))
    several = ["denoise", "a <b>.png", "c.png", "--weight", "0.1", "-o", "out"]
    assert bilevel(*several).exit_code == 0
    assert sorted(p.name for p in (scratched / "out").iterdir()) == ["a <b>.png", "c.png"]
    assert bilevel(*several, "--report", "--force").exit_code == 0
    assert (scratched / "out" / "a <b>.html").exists() and (scratched / "out" / "c.html").exists()
    bilevel("denoise", "c.png", "--weight", "0.1", "-o", "d.png", "--no-report")
    assert (scratched / "d.png").exists() and not (scratched / "d.html").exists()


def test_a_page_overwrites_nothing(scratched):
    (scratched / "d.html").write_text("mine")
    denoise = ["denoise", "a <b>.png", "--weight", "0.1", "-o", "d.png"]
    result = bilevel(*denoise)
    assert result.exit_code == 1 and "The output d.html exists" in said(result)
    assert not (scratched / "d.png").exists()  # before the long work
    assert bilevel(*denoise, "--force").exit_code == 0
    images.write("a <b>.tif", images.read("a <b>.png"))
    result = bilevel("denoise", "a <b>.png", "a <b>.tif", "--weight", "1", "-o", "out", "--report")
    assert result.exit_code == 1 and "Two reports would both be" in said(result)


# ------------------------------------------------------------------------- what the page is told


def test_the_certificate_is_that_of_the_solve(scratched):
    given = images.read("a <b>.png")
    found = Restored.of(given, Inpainter.of(scratched / "mask.png", None))
    assert found.certificate.gap.shape == (3,)  # one a channel
    assert float(found.certificate.gap.max()) <= 1e-3


def test_pictures_of_other_weights_are_those_of_these_weights(short_slider):
    given = Image(cartoon(16), Kind(np.dtype(np.uint8)))
    task = Deblur(("gaussian:0.8",))
    found = Restoration.of(task, None, 0.04, None).by_weight(given)
    for weight, picture in found.pictures.items():
        alone, _ = Restoration.of(task, None, weight, None)(given)
        assert np.abs(alone[0] - picture).max() < 0.05  # both to a gap of 2e-3
    sizes = [picture.std() for picture in found.pictures.values()]
    assert sizes == sorted(sizes, reverse=True)  # more weight, fewer details


def test_where_no_weight_is_there_is_no_slider(scratched):
    given = images.read("a <b>.png")
    assert ShippedDenoiser(None).by_weight(given) is None
    hole = Inpainter(np.ones((24, 24), bool), scratched, 0.1)
    assert hole.by_weight(given) is None  # nothing known in the middle


def test_large_pictures_are_shown_smaller():
    picture = np.arange(35.0).reshape(5, 7)
    assert np.array_equal(one_image.smaller(picture, 1), picture)
    half = one_image.smaller(picture, 2)
    assert half.shape == (2, 3) and half[0, 0] == picture[:2, :2].mean()
    assert one_image.smaller(np.ones((1, 9, 3)), 4).shape == (1, 2, 3)  # a line
    assert one_image.larger(np.eye(3)).shape == (255, 255)


def test_without_a_tol_accuracy_only_listens():
    y = np.random.default_rng(0).normal(size=(2, 9))
    energy = bl.LeastSquares(torch.from_numpy(y)) + 0.2 * bl.TotalVariation(dims=1)
    with bl.accuracy(report=[]) as level:
        found = bl.argmin(energy, tol=1e-3)
        bl.solve(energy)
    assert len(level.report) == 2 and level.others == 0
    assert torch.equal(found, bl.argmin(energy, tol=1e-3))
