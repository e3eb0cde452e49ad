"""The denoising task: its data, its models and their files, its judgement."""

import os
import pickle
import tomllib

import numpy as np
import pytest
import torch

from bilevel import learning
from bilevel.layers import TVDenoise, TVDenoiser
from bilevel.learning import checkpoint
from bilevel.tasks import data, denoise, evaluation, grid, images, runs
from bilevel.tasks.data import Noise
from bilevel.tasks.images import Image, Kind
from bilevel.tasks.task import noise_left
from photos import cartoon, write_photos

DENOISE = denoise.Denoise()
GRAY = Image(cartoon(40), Kind(np.dtype(np.uint8)))


def job(tmp_path, **options):
    folder = write_photos(tmp_path / "photos")
    return runs.Job(str(folder), **{"crop": 16, "crops": 3} | options)


# ---------------------------------------------------------------------------------------- data


def test_noise_levels():
    assert Noise.parse("25") == Noise(25, 25) and Noise.parse("25").levels == (25,)
    assert Noise.parse("5:50") == Noise(5, 50) and Noise.parse("5:50").levels == (5, 15.8, 50)
    assert str(Noise.parse("5:50")) == "5:50" and str(Noise.parse("25.0")) == "25"
    assert data.parse_levels("15,25,15") == (15, 25)


@pytest.mark.parametrize("text", ["", "a", "5:", "1:2:3", "nan", "25;50"])
def test_noise_that_is_no_number(text):
    with pytest.raises(ValueError, match="give a number such as 25 or a range 5:50"):
        Noise.parse(text)


@pytest.mark.parametrize("text", ["0", "-5", "50:5", "inf", "0:10"])
def test_noise_out_of_range(text):
    with pytest.raises(ValueError, match="give one standard deviation > 0"):
        Noise.parse(text)


def test_crops_have_the_noise_they_tell():
    samples = data.crops([GRAY], Noise(5, 50), DENOISE, size=40, count=60)
    told = torch.stack([sample["sigma"] for sample in samples])
    measured = torch.stack([(s["noisy"] - s["clean"]).std() for s in samples])
    # 1600 values: a standard deviation is measured to 2 %, and four times that is out of reach
    assert ((measured / told - 1).abs() < 0.08).all()
    assert 5 / 255 <= told.min() < 8 / 255 and 35 / 255 < told.max() <= 50 / 255
    assert abs(float(told.log().mean().exp()) * 255 - 250**0.5) < 3  # log-uniform, not uniform


def test_crops_are_parts_of_the_image_and_do_not_depend_on_their_number():
    few = data.crops([GRAY], Noise(25, 25), DENOISE, size=16, count=2, seed=7)
    many = data.crops([GRAY], Noise(25, 25), DENOISE, size=16, count=5, seed=7)
    other = data.crops([GRAY], Noise(25, 25), DENOISE, size=16, count=2, seed=8)
    for a, b in zip(few, many, strict=False):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert data.digest(few) == data.digest(many[:2]) != data.digest(other)
    windows = np.lib.stride_tricks.sliding_window_view(GRAY.pixels, (16, 16))
    assert all((windows == s["clean"].numpy()[0]).all((2, 3)).any() for s in many)


def test_crops_leave_small_images_out():
    small = Image(cartoon(12), Kind(np.dtype(np.uint8)))
    with pytest.warns(UserWarning, match="1 of 2 images are smaller than a crop of 16 x 16"):
        assert len(data.crops([small, GRAY], Noise(25, 25), DENOISE, size=16, count=3)) == 3
    with pytest.raises(ValueError, match="All 1 images are smaller .*Use a smaller --crop"):
        data.crops([small], Noise(25, 25), DENOISE, size=16)


def test_photographs_of_scikit_image_learn_and_test_share_none():
    assert not set(data.SKIMAGE["learn"]) & set(data.SKIMAGE["test"])
    for split, names in data.SKIMAGE.items():
        assert [p.path.name for p in data.photographs("skimage", split)] == list(names)


# -------------------------------------------------------------------------------------- models


def test_learned_weight_is_the_best_of_a_grid(tmp_path):
    work = job(tmp_path, noise="25", crops=4)
    result = runs.learn(work, tmp_path / "run", progress=False)
    searched = grid.grid_search(work.task, work.samples(), 25.0)
    weight = result.model.weight.item()
    assert abs(np.log(weight / searched.best)) < 0.03  # the grid's ratio is 1.04
    best = min(searched.losses)
    result.model.tol = 1e-6  # its own leaves 0.1 %
    with torch.no_grad():
        batch = learning.batches.stack(work.samples(), torch.arange(4))
        assert noise_left(result.model, batch) < best * 1.001


def test_run_folder_gives_the_model_back(tmp_path):
    work = job(tmp_path, noise="5:50")
    result = runs.learn(work, tmp_path / "run", steps=2, progress=False)
    model, config = runs.load(tmp_path / "run")
    assert isinstance(model, TVDenoiser) and config["data"]["noise"] == "5:50"
    for a, b in zip(model.parameters(), result.model.parameters(), strict=True):
        assert torch.equal(a, b) and a.dtype == torch.float64
    assert runs.Job.of_run(tmp_path / "run") == work


def test_resume_refuses_other_images(tmp_path):
    work = job(tmp_path, noise="25")
    runs.learn(work, tmp_path / "run", steps=1, progress=False)
    image = images.Image(cartoon(24, seed=99), Kind(np.dtype(np.uint8)))
    images.write(tmp_path / "photos" / "a0.png", image, force=True)
    with pytest.raises(ValueError, match="are not those that the run in .* began with"):
        runs.learn(work, tmp_path / "run", resume=True, progress=False)


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """(config, model bytes) of a run with one weight."""
    folder = tmp_path_factory.mktemp("learned")
    runs.learn(job(folder, noise="25"), folder / "run", steps=1, progress=False)
    return [(folder / "run" / n).read_bytes() for n in ("config.toml", "model.safetensors")]


@pytest.fixture
def run(learned, tmp_path):
    (tmp_path / "config.toml").write_bytes(learned[0])
    (tmp_path / "model.safetensors").write_bytes(learned[1])
    return tmp_path


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def test_a_pickled_model_is_not_loaded(run, monkeypatch):
    monkeypatch.chdir(run)
    (run / "model.safetensors").write_bytes(pickle.dumps({"log_weight": Evil()}))
    with pytest.raises(learning.Damaged, match="no safetensors file"):
        runs.load(run)
    assert not (run / "pwned").exists()


def test_one_changed_bit_is_noticed(run):
    content = bytearray((run / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (run / "model.safetensors").write_bytes(content)
    with pytest.raises(learning.Damaged, match="do not match its SHA-256"):
        runs.load(run)


@pytest.mark.parametrize(
    "state",
    [
        {"weight": torch.zeros((), dtype=torch.float64)},
        {"log_weight": torch.zeros(2, dtype=torch.float64)},
        {"log_weight": torch.zeros(())},
        {"log_weight": torch.zeros((), dtype=torch.float64), "more": torch.zeros(1)},
        {},
    ],
    ids=["name", "shape", "dtype", "extra", "empty"],
)
def test_other_tensors_are_refused(run, state):
    checkpoint.write(run / "model.safetensors", state)
    with pytest.raises(ValueError, match="does not fit the model in config.toml: it holds"):
        runs.load(run)


def test_parameters_that_are_not_finite_are_refused(run):
    nan = {"log_weight": torch.tensor(torch.nan, dtype=torch.float64)}
    checkpoint.write(run / "model.safetensors", nan)
    with pytest.raises(ValueError, match="parameters that are not finite"):
        runs.load(run)


CONFIGS = {
    "other model": ('name = "tv"', 'name = "os.system"', "which this version of bilevel does not"),
    "more options": ('name = "tv"', 'name = "tv"\ncode = "x"', "does not know"),
    "wrong kind": ("noise_dependent = false", "noise_dependent = 1", "does not know"),
    "other task": ('task = "denoise"', 'task = "fly"', "The task is 'fly' .*It knows 'denoise'"),
    "no kernels": ('task = "denoise"', 'task = "deblur"', "'deblur' with the kernels None"),
    "no TOML": ('task = "denoise"', "task = ", "cannot be read"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(run, name):
    old, new, message = CONFIGS[name]
    text = (run / "config.toml").read_text()
    assert old in text
    (run / "config.toml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        runs.load(run)


def test_job_of_a_config_without_its_data(run):
    text = (run / "config.toml").read_text()
    assert tomllib.loads(text)["data"]["crop"] == 16
    (run / "config.toml").write_text(text.replace("crop = 16", 'crop = "big"'))
    with pytest.raises(ValueError, match=r"not of a run of `bilevel learn`: \['crop'\] is missing"):
        runs.Job.of_run(run)


# ---------------------------------------------------------------------------------- evaluation


def test_channels_are_denoised_alone():
    model = TVDenoise(0.1, tol=denoise.TOL).double()
    channels = np.moveaxis(
        data.noisy(cartoon(16, colour=True), 25, np.random.default_rng(0)), -1, 0
    )
    together = DENOISE.apply(model, channels, 25)
    alone = np.concatenate([DENOISE.apply(model, c[None], 25) for c in channels])
    np.testing.assert_allclose(together, alone, atol=1e-12)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("method", [denoise.non_local_means, denoise.wavelets])
def test_classical_methods_denoise(method, colour):
    pixels = cartoon(40, colour)
    clean = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    seen = data.noisy(clean, 25, np.random.default_rng(0))
    result = method(seen, 25)
    assert result.shape == seen.shape
    assert evaluation.quality(result, clean)[0] > evaluation.quality(seen, clean)[0] + 3


def test_estimated_noise_is_near_the_truth():
    seen = GRAY.with_channels(data.noisy(GRAY.channels, 25, np.random.default_rng(0)))
    assert 20 < denoise.estimate_noise(seen) < 32
    flat = Image(np.full((16, 16), 0.5), Kind(np.dtype(np.uint8)))
    assert denoise.estimate_noise(flat) < 1e-9


def test_evaluation_is_written_and_read_back(tmp_path):
    colour = Image(cartoon(24, colour=True), Kind(np.dtype(np.uint8)))
    model = TVDenoise(0.1, tol=denoise.TOL).double()
    searched = grid.Grid(25.0, [0.05, 0.1, 0.2], [0.3, 0.2, 0.4])
    result = evaluation.evaluate(
        {"TV, learned": model}, [GRAY, colour], [25.0], DENOISE, grids=[searched]
    )
    table = evaluation.means(result.rows)
    assert list(table) == [
        "noisy", "TV, grid search", "TV, learned", "non-local means", "wavelets"
    ]  # fmt: skip
    assert table["TV, learned"] == table["TV, grid search"]  # both have the weight 0.1
    assert table["TV, learned"][25.0][0] > table["noisy"][25.0][0] + 5
    evaluation.save(result, tmp_path)
    assert evaluation.read_rows(tmp_path) == result.rows
    assert evaluation.read_grids(tmp_path) == [searched] and searched.best == 0.1
    assert len(list((tmp_path / "evaluation" / "pictures").iterdir())) == 2 * 6
    with pytest.raises(FileExistsError, match="holds an evaluation. To replace it, pass --force"):
        evaluation.save(result, tmp_path)
    evaluation.save(evaluation.Evaluation(result.rows[:3], [], {}), tmp_path, force=True)
    assert len(evaluation.read_rows(tmp_path)) == 3 and not evaluation.read_grids(tmp_path)


def test_evaluation_does_not_depend_on_the_other_images():
    colour = Image(cartoon(24, colour=True), Kind(np.dtype(np.uint8)))
    one = evaluation.evaluate({}, [GRAY], [25.0], DENOISE).rows
    two = evaluation.evaluate({}, [GRAY, colour], [15.0, 25.0], DENOISE).rows
    assert one == [row for row in two if row.image == "image 0" and row.noise == 25]


def test_images_of_the_same_name_are_told_apart(tmp_path):
    paths = [tmp_path / "a.png", tmp_path / "a.jpg", tmp_path / "b.png"]
    named = [Image(GRAY.pixels, GRAY.kind, path) for path in paths]
    assert evaluation.names(named) == ["a.png", "a.jpg", "b"]


def test_grid_search_is_left_out_where_the_images_are_gone(tmp_path):
    work, ticks = job(tmp_path), []
    (tmp_path / "photos").rename(tmp_path / "moved")
    with pytest.warns(UserWarning, match="No grid search: the images of the run are gone"):
        assert grid.grids_of(work, [25.0], lambda: ticks.append(1)) == []
    assert len(ticks) == grid.GRID_SOLVES
