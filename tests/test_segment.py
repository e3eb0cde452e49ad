"""Segmentation by scribbles: regions found, numbers learned, nonsense refused."""

import numpy as np
import pytest
import torch
from scipy.io import savemat

from bilevel.layers import Segmenter
from bilevel.tasks import images, regions, segment
from bilevel.tasks.images import Image, Kind
from command_line import bilevel, said

BYTES = Kind(np.dtype(np.uint8))


def halves(rng, size=24):
    """Three bands of colour with noise, and which is which."""
    labels = np.repeat([[1] * 8 + [2] * 8 + [3] * 8], size, 0)
    colors = np.array([[0.8, 0.2, 0.2], [0.2, 0.7, 0.3], [0.3, 0.3, 0.8]])
    return (colors[labels - 1] + 0.1 * rng.standard_normal((size, 24, 3))).clip(0, 1), labels


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two pictures with human segmentations, and a drawing of strokes."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        pixels, labels = halves(rng)
        images.write(f"photos/{name}.png", Image(pixels, BYTES))
        people = np.empty((1, 2), dtype=object)
        fine = labels.copy()
        fine[::2] += 3
        people[0] = [{"Segmentation": fine}, {"Segmentation": labels}]
        savemat(f"photos/{name}.mat", {"groundTruth": people})
    strokes = np.zeros((24, 24))
    for label, column in ((1, 3), (2, 12), (3, 20)):
        strokes[4:20, column] = label / 3
    images.write("strokes.png", Image(strokes, BYTES))
    return tmp_path


def test_strokes_become_regions(folder):
    command = ["segment", "photos/a.png", "--scribbles", "strokes.png", "-o", "out.png"]
    result = bilevel(*command)
    assert result.exit_code == 0 and "3 regions" in said(result), result.output
    found = np.rint(255 * images.read("out.png").pixels)
    assert (found == halves(np.random.default_rng(0))[1]).mean() > 0.98
    assert bilevel(*command).exit_code == 1  # it is there


def test_the_coarsest_person_is_asked(folder):
    labels = segment.regions(folder / "photos" / "a.mat")
    assert (labels == halves(np.random.default_rng(0))[1]).all()


def test_strokes_are_drawn_inside_of_every_region():
    labels = halves(np.random.default_rng(0))[1]
    strokes = segment.draw_scribbles(labels, seed=1)
    assert set(np.unique(strokes)) == {0, 1, 2, 3}
    assert (labels[strokes > 0] == strokes[strokes > 0]).all()


def test_learning_lessens_the_doubt_and_is_read_back(folder):
    result = bilevel("learn", "segment", "--images", "photos", "--out", "run", "--steps", "2")
    assert result.exit_code == 0 and "Learned: color" in said(result), result.output
    samples = segment.samples(sorted((folder / "photos").glob("*.png"))[1:])
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    learned, hand = segment.load(folder / "run"), segment.load(None)
    with torch.no_grad():
        assert segment.doubt(learned, batch) < segment.doubt(hand, batch)
    assert regions.mean_iou(regions.found(learned, samples[0]), samples[0]) > 0.9
    told = bilevel("info", "run")
    assert told.exit_code == 1 and "of the task 'segment', not of 'denoise' or 'deb" in said(told)
    for task, message in (
        ("fly", "is no run of bilevel learn segment"),
        ("denoise", "of the task 'denoise', not of 'segment'. Use bilevel denoise"),
    ):
        (folder / "run" / "config.toml").write_text(f'task = "{task}"\n')
        with pytest.raises(ValueError, match=message):
            segment.load(folder / "run")


def test_the_gradient_is_that_of_differences(monkeypatch):
    """Of converged solutions, like 1 / steps: a run of few takes its step sizes for constants."""
    monkeypatch.setattr("bilevel.layers.segment.GAP", 1e-13)
    rng = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 4, 5, generator=rng, dtype=torch.float64)
    scribbles = torch.zeros(1, 4, 5, dtype=torch.long)
    scribbles[0, 0, 0], scribbles[0, 3, 4] = 1, 2
    model = Segmenter(color=1.0, space=1.0, edge=0.3, contrast=1.0, steps=1000).double()
    pull = torch.rand(1, 2, 4, 5, generator=rng, dtype=torch.float64)
    parameters, h = list(model.parameters()), 1e-5
    slope = sum(torch.autograd.grad((pull * model(image, scribbles)).sum(), parameters))
    ends = []
    for step in (h, -2 * h):
        with torch.no_grad():
            for parameter in parameters:
                parameter.add_(step)
            ends.append((pull * model(image, scribbles)).sum())
    torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * h), rtol=0.03, atol=0)


@pytest.mark.parametrize(
    "strokes, told",
    [
        (np.zeros((24, 24)), "have 0 colours beside black"),
        (np.linspace(0, 1, 24 * 24).reshape(24, 24), "draw 2 to 64 regions"),
        (np.zeros((5, 24)), "Draw on a copy of the image"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_strokes_that_are_none_are_refused(folder, strokes, told):
    images.write("bad.png", Image(strokes, BYTES))
    result = bilevel("segment", "photos/a.png", "--scribbles", "bad.png", "-o", "out.png")
    assert result.exit_code == 1 and told in said(result)


@pytest.mark.parametrize(
    ("output", "told"),
    [("photos/a.png", "is the input"), ("bad.png", "is the input"), ("out.jpg", "lose regions")],
)
def test_outputs_that_would_lose_something_are_refused(folder, output, told):
    images.write("bad.png", Image(np.zeros((24, 24)), BYTES))
    arguments = ("photos/a.png", "--scribbles", "bad.png", "-o", output, "--force")
    result = bilevel("segment", *arguments)
    assert result.exit_code == 1 and told in said(result)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Segmenter needs images"):
        Segmenter()(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long))
    with pytest.raises(ValueError, match="Segmenter needs a positive, finite color"):
        Segmenter(color=0.0)
