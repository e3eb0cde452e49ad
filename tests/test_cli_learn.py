"""bilevel learn: what it leaves, what it says, what it refuses."""

import os
import re
import signal
import sys
import time

import numpy as np
import pytest
import torch

import bilevel_cli
from bilevel import learning
from bilevel.tasks import data, runs
from command_line import bilevel, said
from learning_problem import fork_server
from photos import write_photos

LEARN = ["learn", "denoise", "--images", "photos", "--crop", "16", "--crops", "3"]


def test_learn_leaves_a_run_folder(here):
    result = bilevel(*LEARN, "--noise", "25", "--model", "tv", "--steps", "2", "--out", "new")
    assert result.exit_code == 0, result.output
    assert "Learned in 2 steps: weight = 0." in said(result)
    names = {path.name for path in (here / "new").iterdir()}
    assert {"model.safetensors", "config.toml", "metrics.csv", "report.html"} <= names
    job = runs.Job.of_run(here / "new")
    assert job == runs.Job(str((here / "photos").resolve()), "25", "tv", 16, 3, 0)


def test_learning_without_clean_images_comes_near_to_learning_with_them(here, short_slider):
    """The weight within 15 %, with the noise of another draw."""
    (here / "noisy").mkdir()
    rng, learned = np.random.default_rng(0), {}
    for picture in data.photographs("skimage"):
        seen = data.noisy(picture.gray(), 25, rng)
        np.save(here / "noisy" / f"{picture.path.stem}.npy", seen)
    for source, more in {"skimage": [], "noisy": ["--no-clean"]}.items():
        out = here / f"from_{source}"
        options = ["--noise", "25", "--crop", "40", "--crops", "8", "--out", out, *more]
        result = bilevel("learn", "denoise", "--images", source, *options)
        assert result.exit_code == 0, result.output
        assert (out / "report.html").exists()
        assert runs.Job.of_run(out).clean == (source == "skimage")
        learned[source] = runs.load(out)[0].weight.item()
    assert learned["noisy"] == pytest.approx(learned["skimage"], rel=0.15)


@pytest.mark.parametrize("more", [[], ["--noise", "5:50"]])
def test_without_clean_images_the_noise_must_be_told(here, more):
    result = bilevel(*LEARN, "--no-clean", "--out", "new", *more)
    assert result.exit_code == 1
    assert re.search("--no-clean (needs --noise|learns a denoiser)", said(result))


def test_learn_refuses_a_folder_that_is_in_use(here):
    result = bilevel(*LEARN, "--out", "run")
    assert result.exit_code == 1
    assert re.search("Error: .*run is not empty.* --resume", said(result))


def test_interruption_saves_and_resume_gives_the_same_numbers(here, monkeypatch):
    options = [*LEARN, "--noise", "5:50", "--steps", "4"]
    assert bilevel(*options, "--out", "whole").exit_code == 0
    plain, calls = runs.noise_left, []

    def interrupted(model, batch):
        calls.append(1)
        if len(calls) == 4:  # within the third step
            raise KeyboardInterrupt
        return plain(model, batch)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "noise_left", interrupted)
        result = bilevel(*options, "--out", "parts")
    assert result.exit_code == 130
    assert re.search(r"Interrupted. Step \d is saved in parts", said(result))
    assert "Type: bilevel learn denoise --out parts --resume" in said(result)
    assert len(learning.read_metrics(here / "parts")) < 4
    assert bilevel("learn", "denoise", "--out", "parts", "--resume", "--steps", 4).exit_code == 0
    for name in ("whole", "parts"):
        rows = learning.read_metrics(here / name)
        assert len(rows) == 4
    numbers = [
        [
            {k: v for k, v in row.items() if k != "seconds"}
            for row in learning.read_metrics(here / n)
        ]
        for n in ("whole", "parts")
    ]
    assert numbers[0] == numbers[1]


def learn_for_long(folder):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    os.chdir(folder)
    with open("stderr.txt", "w") as told:
        os.dup2(told.fileno(), 2)
    # an optimizer that does not end early
    runs._optimizer = lambda parameters, tolerance: torch.optim.SGD(parameters, lr=1e-3)
    sys.argv = ["bilevel", *LEARN, "--noise", "5:50", "--steps", "99", "--out", "run2"]
    bilevel_cli.main()


def test_ctrl_c_in_a_terminal(here):
    """A real process and a real signal, in the middle of learning."""
    process = fork_server.Process(target=learn_for_long, args=(here,))
    process.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(learning.read_metrics(here / "run2")) < 2:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    errors = (here / "stderr.txt").read_text()
    assert process.exitcode == 130, errors
    assert "is saved in run2" in errors and "--resume" in errors and "Traceback" not in errors
    model, _ = runs.load(here / "run2")
    assert model.slope.item() != 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "image folder .*nowhere does not exist. Give a folder that"),
        (["--images", "empty"], "empty holds no image file"),
        (["--images", "photos", "--noise", "loud"], "noise is 'loud': give a number such as 25"),
        (
            ["--images", "photos", "--model", "unet"],
            "model is 'unet', which is not known. Use 'tv'",
        ),
        (["--images", "photos", "--crop", "100"], "All 3 images are smaller than a crop of 100"),
        (
            ["--images", "photos", "--crops", "0"],
            "--crops 0, --crop 64: there must be",
        ),
        (
            ["--images", "photos", "--crop", "16", "--steps", "-1"],
            "steps=-1: pass the number of steps",
        ),
        ([], "No images. Name a folder of clean images with --images"),
        (["--resume"], "new holds no config.toml, so it is not a run folder"),
    ],
)
def test_learn_says_what_is_wrong(here, arguments, message):
    (here / "empty").mkdir()
    result = bilevel("learn", "denoise", "--out", "new", *arguments)
    assert result.exit_code == 1 and re.search(f"Error: .*{message}", said(result)), result.output


def test_a_negative_seed_is_refused(here):
    result = bilevel("learn", "denoise", "--images", "photos", "--out", "new", "--seed", "-1")
    assert result.exit_code == 2 and "--seed" in said(result) and not (here / "new").exists()


def test_resume_refuses_other_options(here):
    result = bilevel("learn", "denoise", "--out", "run", "--resume", "--noise", "25")
    assert result.exit_code == 1
    assert "began with --noise 5:50, got 25. Leave the option out" in said(result)


def test_bad_image_is_skipped_with_a_warning(here):
    folder = write_photos(here / "mixed")
    (folder / "broken.png").write_bytes(b"junk")
    options = ["--crop", "16", "--crops", "2", "--steps", "1", "--out", "new"]
    result = bilevel("learn", "denoise", "--images", "mixed", *options)
    assert result.exit_code == 0, result.output
    assert re.search("Warning: Skipped: .*broken.png could not be read as PNG", said(result))
