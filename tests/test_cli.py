"""The command line, as a person uses it: what it does, what it says, what it refuses."""

import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from bilevel import learning
from bilevel.cli import app
from bilevel.tasks import data, images, runs
from photos import cartoon, write_photos

COMMANDS = [["learn", "denoise"], ["denoise"], ["evaluate"], ["info"], ["demo"]]
LEARN = ["learn", "denoise", "--images", "photos", "--crop", "16", "--crops", "3"]


def bilevel(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def said(result):
    """What was printed, on one line."""
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A folder with photos and a run for every noise level, made by the command."""
    folder = tmp_path_factory.mktemp("learned")
    write_photos(folder / "photos")
    job = runs.Job(str(folder / "photos"), noise="5:50", crop=16, crops=3)
    runs.learn(job, folder / "run", steps=2, progress=False)
    return folder


@pytest.fixture
def here(learned, tmp_path, monkeypatch):
    """A working folder with photos/, run/ and a noisy.png."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(learned / "photos")
    (tmp_path / "run").mkdir()
    for name in ("config.toml", "model.safetensors", "metrics.csv"):
        (tmp_path / "run" / name).write_bytes((learned / "run" / name).read_bytes())
    clean = images.read(learned / "photos" / "a1.png")
    seen = data.noisy(clean.channels, 25, np.random.default_rng(0))
    images.write(tmp_path / "noisy.png", clean.with_channels(seen))
    return tmp_path


# ---------------------------------------------------------------------------------------- help


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_is_this_command(words):
    result = bilevel(*words, "--help")
    assert result.exit_code == 0
    assert f"Example: bilevel {' '.join(words)}" in said(result)


def test_help_lists_the_commands():
    result = bilevel("--help")
    assert all(words[0] in result.output for words in COMMANDS)


# --------------------------------------------------------------------------------------- learn


def test_learn_leaves_a_run_folder(here):
    result = bilevel(*LEARN, "--noise", "25", "--model", "tv", "--steps", "2", "--out", "new")
    assert result.exit_code == 0, result.output
    assert "Learned in 2 steps: weight = 0." in said(result)
    names = {path.name for path in (here / "new").iterdir()}
    assert {"model.safetensors", "config.toml", "metrics.csv", "report.html"} <= names
    job = runs.Job.of_run(here / "new")
    assert job == runs.Job(str((here / "photos").resolve()), "25", "tv", 16, 3, 0)


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


def test_ctrl_c_in_a_terminal(here):
    """A real process and a real signal, in the middle of learning."""
    options = [*LEARN, "--noise", "5:50", "--steps", "99", "--out", "run2"]
    code = (
        "from bilevel.tasks import runs; plain = runs._optimizer\n"
        "import torch, bilevel.cli\n"  # an optimizer that does not end early
        "runs._optimizer = lambda p: torch.optim.SGD(p, lr=1e-3)\n"
        "bilevel.cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *options], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(learning.read_metrics(here / "run2")) < 2:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert b"is saved in run2" in errors and b"--resume" in errors and b"Traceback" not in errors
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


# ------------------------------------------------------------------------------------- denoise


def psnr(path, reference):
    a, b = images.read(path).pixels, images.read(reference).pixels
    assert a.shape == b.shape
    return -10 * np.log10(((a - b) ** 2).mean())


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
        (["noisy.png"], "Give one of --model RUN and --weight NUMBER"),
        (["noisy.png", "--model", "run", "--weight", "1"], "Give one of --model RUN and --weight"),
        (["noisy.png", "--weight", "-1"], "--weight is -1: give a number > 0"),
        (["noisy.png", "--weight", "nan"], "--weight is nan: give a number > 0"),
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


def test_denoise_when_no_image_is_good(here):
    (here / "bad").mkdir()
    for name in "ab":
        (here / "bad" / f"{name}.png").write_bytes(b"junk")
    result = bilevel("denoise", "bad", "-o", "out", "--weight", "0.1")
    assert result.exit_code == 1
    assert "Error: None of the 2 images could be denoised" in said(result)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weight", "0.6"], "--weight is 0.6, which leaves little of an image"),
        (["--model", "run", "--noise", "90"], r"noise of 90.0 lies outside .* \(5:50\)"),
    ],
)
def test_denoise_warns(here, arguments, message):
    result = bilevel("denoise", "noisy.png", "-o", "out.png", *arguments)
    assert result.exit_code == 0 and re.search(f"Warning: .*{message}", said(result))


# ---------------------------------------------------------------------------- evaluate and info


def test_evaluate_and_info(here):
    before = bilevel("info", "run")
    assert "weight = " in before.output and "not evaluated yet" in before.output
    result = bilevel("evaluate", "run", "--images", "photos", "--noise", "15,40")
    assert result.exit_code == 0, result.output
    for word in ("noisy", "TV, grid search", "TV, learned", "non-local means", "noise 40"):
        assert word in result.output
    assert (here / "run" / "report.html").exists()
    assert "TV, learned" in bilevel("info", "run").output
    again = bilevel("evaluate", "run", "--images", "photos")
    assert again.exit_code == 1 and "To replace it, pass --force" in said(again)


def test_evaluate_and_info_of_no_run(here):
    for words in (["evaluate", "photos", "--images", "photos"], ["info", "photos"]):
        result = bilevel(*words)
        assert result.exit_code == 1 and "photos holds no config.toml" in said(result)


def test_info_of_a_damaged_model(here):
    (here / "run" / "model.safetensors").write_bytes(b"\x80\x04junk")
    result = bilevel("info", "run")
    assert result.exit_code == 1
    assert "model.safetensors is no safetensors file" in said(result)


def test_demo_takes_the_next_free_folder(tmp_path, monkeypatch):
    from bilevel.tasks import demo

    monkeypatch.chdir(tmp_path)
    assert str(demo.free_folder()) == "runs/demo"
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert str(demo.free_folder()) == "runs/demo-2"
    (tmp_path / "runs" / "demo-2").mkdir()
    assert str(demo.free_folder()) == "runs/demo-3"


def test_demo_in_small(tmp_path, monkeypatch):
    """The whole of it, on a corner of each photograph and at one noise level."""
    from dataclasses import replace

    from bilevel.tasks import demo, evaluation

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "JOB", replace(demo.JOB, crop=16, crops=3))
    monkeypatch.setattr(demo, "LEVELS", (25.0,))
    monkeypatch.setattr(demo, "SIZE", 32)
    result = bilevel("demo")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "demo"
    table = evaluation.means(evaluation.read_rows(run))
    for method in ("TV, learned for every noise", "TV, learned at noise 25"):
        assert table[method][25.0][0] > table["noisy"][25.0][0] + 3
    assert "Report: runs/demo/report.html" in result.output and (run / "report.html").exists()
