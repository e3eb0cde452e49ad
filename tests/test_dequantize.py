"""Dequantisation: the layer, the frames, the files, the commands."""

import shutil

import numpy as np
import pytest
import torch
from scipy.fft import dct
from scipy.io import wavfile
from scipy.optimize import linprog

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.learning import checkpoint
from bilevel.tasks import MODELS, audio, dequantize, hearing
from bilevel.tasks.audio import Audio, AudioError
from bilevel.tasks.windows import Windows
from command_line import bilevel, said

HALF = 2.0**-4


def speech(seconds=0.3, rate=16000, seed=0):
    """Something like speech: a few harmonics that come and go."""
    t = np.arange(round(seconds * rate)) / rate
    rng = np.random.default_rng(seed)
    pitch = 110 + 20 * np.sin(2 * np.pi * 1.5 * t + rng.random())
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase + rng.random()) / k**1.5 for k in range(1, 12))
    sound = tone * np.clip(np.sin(2 * np.pi * 2.5 * t), 0, None)
    return sound / np.abs(sound).max()


def save(path, samples, rate=16000, dtype=np.int16):
    path.write_bytes(audio.encode(Audio(np.atleast_2d(samples), rate, np.dtype(dtype))))


# --------------------------------------------------------------------------------- the quantiser


def test_the_quantiser_is_mid_rise():
    values = np.array([-1.0, -0.13, -1e-9, 0.0, 0.12, 0.13, 0.99, 1.0])
    middles = np.array([-15, -3, -1, 1, 1, 3, 15, 15]) / 16
    assert (dequantize.quantize(values, 4) == middles).all()
    assert (np.abs(dequantize.quantize(values, 7) - values) <= 2.0**-7).all()


def test_levels_are_checked():
    sound = Audio(dequantize.quantize(speech()[None], 5), 16000)
    dequantize.check_levels(sound, 5)
    with pytest.raises(AudioError, match="They fit 5 bits: pass --bits 5"):
        dequantize.check_levels(sound, 4)
    with pytest.raises(AudioError, match="fit no number of bits"):
        dequantize.check_levels(Audio(speech()[None], 16000), 4)
    with pytest.raises(ValueError, match="from 1 to 16"):
        dequantize.radius(0)


# -------------------------------------------------------------------------------------- operators


def test_the_spectral_start_is_a_weighted_cosine_transform():
    assert np.allclose(dequantize.cosines(12), dct(np.eye(12), norm="ortho", axis=0))
    clean = torch.randn(50, 12, dtype=torch.float64)
    K = dequantize.spectral(clean)
    weight = K.norm(dim=1)
    assert torch.allclose(K / weight[:, None], dequantize.cosines(12))
    size = (clean @ dequantize.cosines(12).mT).abs().mean(0) + 0.01
    assert torch.allclose(weight * size, (weight * size)[0].expand(12))


# ------------------------------------------------------------------------------------------ layer


def test_the_layer_solves_the_linear_program():
    torch.manual_seed(0)
    K = dequantize.cosines(24) + 0.1 * torch.randn(24, 24, dtype=torch.float64)
    x = torch.from_numpy(
        dequantize.quantize(0.4 * np.random.default_rng(0).normal(size=(3, 24)), 4)
    )
    u = Dequantize(K, tol=1e-9).double()(x, HALF)
    assert ((u - x).abs() <= HALF + 1e-12).all()
    for row, found in zip(x.numpy(), u.detach().numpy(), strict=True):
        k, n = K.numpy(), 24  # min sum t with -t <= K u <= t
        A = np.block([[k, -np.eye(n)], [-k, -np.eye(n)]])
        bounds = [(v - HALF, v + HALF) for v in row] + [(0, None)] * n
        best = linprog(np.r_[np.zeros(n), np.ones(n)], A, np.zeros(2 * n), bounds=bounds)
        assert abs(np.abs(k @ found).sum() - best.fun) < 1e-7 * best.fun


def test_weights_in_the_norm_are_the_same_energy():
    K = torch.randn(9, 7, dtype=torch.float64) * torch.logspace(-1, 1, 9).double()[:, None]
    model = Dequantize(K)
    assert torch.allclose(model.analysis, K)
    x, u = torch.randn(2, 5, 7, dtype=torch.float64)
    u = x + HALF * u.tanh()
    plain = bl.L1() @ bl.Matrix(K) + bl.Box(x - HALF, x + HALF)
    assert torch.allclose(model.energy(x, HALF).value(u), plain.value(u))


def test_the_relaxed_derivative_leaves_the_solution_alone():
    K, x = dequantize.cosines(16), torch.randn(4, 16, dtype=torch.float64)
    exact, relaxed = (
        Dequantize(K, steps=25, diff=bl.Truncated(5), relaxed=r) for r in (False, True)
    )
    u, v = exact(x, HALF), relaxed(x, HALF)
    assert torch.allclose(u, v)
    u.square().sum().backward(), v.square().sum().backward()
    assert not torch.allclose(exact.rows.grad, relaxed.rows.grad)


@pytest.mark.parametrize("steps", [20, None])
def test_the_scales_of_sound_and_operator_play_no_part(steps):
    K, x = dequantize.cosines(16), torch.randn(4, 16, dtype=torch.float64)
    u = Dequantize(K, steps=steps)(x, HALF)
    v = Dequantize(30 * K, steps=steps)(1e-3 * x, 1e-3 * HALF)
    assert torch.allclose(1e3 * v, u, atol=1e-4)


@pytest.mark.parametrize(
    "analysis, match",
    [
        (torch.ones(3), r"needs a matrix \(m, n\)"),
        (torch.zeros(3, 3), "rows that are not 0"),
        (torch.full((2, 2), torch.nan), "finite rows"),
    ],
)
def test_what_the_layer_refuses(analysis, match):
    with pytest.raises(ValueError, match=match):
        Dequantize(analysis)


def test_the_layer_asks_for_frames():
    with pytest.raises(ValueError, match=r"needs frames \(B, 4\), got \(5,\)"):
        Dequantize(torch.eye(4))(torch.zeros(5), HALF)


# ----------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("n, hop", [(8, 4), (9, 5), (7, 2), (8, 8)])
@pytest.mark.parametrize("length", [1, 3, 8, 50])
def test_the_mean_of_frames_is_the_signal(n, hop, length):
    signal = torch.randn(length, dtype=torch.float64)
    for windows in (Windows(n, hop), Windows(n, hop, at_once=3)):
        assert windows.cut(signal).shape[1] == n
        assert torch.allclose(windows.mean(signal, lambda frames: frames), signal)
        moved = windows.mean(signal, lambda frames: frames + torch.rand(len(frames), 1))
        assert (moved >= signal - 1e-12).all() and (moved <= signal + 1).all()


# ------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
def test_wav_files_keep_their_numbers(tmp_path, dtype):
    samples = np.stack([speech(0.01), -speech(0.01)])
    save(tmp_path / "a.wav", samples, 22050, dtype)
    back = audio.read(tmp_path / "a.wav")
    assert back.rate == 22050 and back.dtype == dtype and back.samples.shape == samples.shape
    assert np.abs(back.samples - samples).max() <= 2.0**-15


def test_eight_bits_are_read(tmp_path):
    wavfile.write(tmp_path / "a.wav", 8000, np.array([0, 128, 255], np.uint8))
    assert np.allclose(audio.read(tmp_path / "a.wav").samples, [[-1, 0, 127 / 128]])


def test_bad_files_are_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFFxxxx")
    wavfile.write(tmp_path / "nan.wav", 8000, np.array([np.nan], np.float32))
    wavfile.write(tmp_path / "empty.wav", 8000, np.zeros(0, np.int16))
    wavfile.write(tmp_path / "whole.wav", 8000, np.zeros(100, np.int16))
    whole = (tmp_path / "whole.wav").read_bytes()
    (tmp_path / "head.wav").write_bytes(whole[:20])
    for name, match in [
        ("a", "cannot be read"), ("head", "cannot be read"), ("nan", "NaN"),
        ("empty", "no samples"), ("b", "does not exist"),
    ]:  # fmt: skip
        with pytest.raises(AudioError, match=match):
            audio.read(tmp_path / f"{name}.wav")
    (tmp_path / "cut.wav").write_bytes(whole[:-100])
    with pytest.warns(UserWarning, match="ends before its header says: 50 samples were read"):
        assert audio.read(tmp_path / "cut.wav").samples.shape == (1, 50)


# --------------------------------------------------------------------------------------- restore


@pytest.fixture(scope="module")
def model():
    frames = dequantize.Frames(dequantize.cut([Audio(speech(2.0)[None], 16000)], 4), 4)
    return Dequantize(dequantize.spectral(frames.clean.flatten(0, 1)), steps=dequantize.STEPS)


@pytest.mark.parametrize(
    "rate, seconds", [(16000, 0.11), (8000, 0.11), (22050, 0.05), (16000, 4e-4)]
)
def test_restored_sound_stays_in_its_cells_and_has_no_seams(model, rate, seconds):
    clean = np.stack([speech(seconds, rate), speech(seconds, rate, seed=1)])
    coarse = Audio(dequantize.quantize(clean, 4), rate)
    fine = dequantize.restore(model, coarse, 4).samples
    assert fine.shape == clean.shape
    assert (np.abs(fine - coarse.samples) <= HALF).all()
    assert np.abs(np.diff(fine)).max() <= np.abs(np.diff(clean)).max()
    if seconds > 0.01:
        assert np.square(fine - clean).mean() < 0.75 * np.square(coarse.samples - clean).mean()


def test_the_model_that_comes_along_is_better_than_five_taps(shared_data):
    model, config = dequantize.load(None)
    assert config["data"]["bits"] == 4 and model.steps == dequantize.STEPS
    errors = {}
    for name in ("S_01_09_16k.wav", "S_05_04_16k.wav"):
        clean = hearing.scaled(audio.read(shared_data("speech_ieee") / "dev" / name))
        for method, sound in hearing.answers(model, clean, 4).items():
            assert (np.abs(sound.samples - dequantize.quantize(clean.samples, 4)) <= HALF).all()
            errors.setdefault(method, []).append(np.square(sound.samples - clean.samples).mean())
    coarse, mean, learned = (np.mean(parts) for parts in errors.values())
    assert learned < 0.8 * mean < 0.8 * 0.5 * coarse


def test_silence_is_restored_to_silence(model):
    quiet = Audio(dequantize.quantize(0.05 * speech()[None], 4), 16000)
    assert (dequantize.restore(model, quiet, 4).samples == 0).all()


def test_five_taps_without_a_model():
    x = dequantize.quantize(speech()[None].reshape(1, -1, 320), 4)
    y = dequantize.smooth(x, 4)
    assert (np.abs(y - x) <= HALF).all()
    silent = (np.abs(x) <= HALF).all(-1)
    assert silent.any() and (y[silent] == 0).all() and (y[~silent] != 0).any()


# --------------------------------------------------------------------------------------- commands


@pytest.fixture
def sounds(here):
    (here / "speech").mkdir()
    for k in range(3):
        save(here / "speech" / f"{k}.wav", 0.9 * speech(0.25, 8000, seed=k), 8000)
    save(here / "coarse.wav", dequantize.quantize(speech(0.2, 8000), 4), 8000)
    return here


def test_learn_and_dequantize(sounds):
    result = bilevel("learn", "dequantize", "--audio", "speech", "--steps", 3, "--out", "deq")
    assert result.exit_code == 0, result.output
    assert "on 1 sounds" in said(result)
    rows = {row.method: row for row in hearing.read_errors("deq")}
    assert rows["learned"].all < rows["quantised"].all
    told = said(bilevel("info", "deq"))
    assert "a dequantiser for 4 bits" in told and "K, 160 x 160" in told and "quantised" in told
    page = (sounds / "deq" / "report.html").read_text()
    assert page.count("<audio controls") == 4 and "media-src data:" in page
    judged = bilevel("evaluate", "deq", "--audio", "speech")
    assert judged.exit_code == 1 and "holds an evaluation" in said(judged)
    judged = bilevel("evaluate", "deq", "--audio", "speech", "--force")
    assert judged.exit_code == 0, judged.output
    assert {row.method: row for row in hearing.read_errors("deq")} != rows  # of all sounds
    other = bilevel("denoise", "photo.png", "--model", "deq")
    assert other.exit_code == 1 and "of the task 'dequantize', not of 'denoise'. Use" in said(other)
    judged = bilevel("evaluate", "deq")
    assert judged.exit_code == 1 and "is a dequantiser: name a folder" in said(judged)
    again = bilevel("learn", "dequantize", "--out", "deq", "--resume", "--steps", 4)
    assert again.exit_code == 0 and "Learned in 4 steps" in said(again)
    done = bilevel("dequantize", "coarse.wav", "-o", "fine.wav", "--model", "deq")
    assert done.exit_code == 0, done.output
    coarse, fine = audio.read("coarse.wav"), audio.read("fine.wav")
    assert (np.abs(coarse.samples - fine.samples) <= HALF).all()
    assert fine.rate == 8000 and (coarse.samples != fine.samples).any()


def test_what_the_commands_refuse(sounds):
    for arguments, words in [
        (["dequantize", "coarse.wav", "-o", "coarse.wav"], "exists"),
        (["dequantize", "coarse.wav", "-o", "coarse.wav", "--force"], "is the input"),
        (["dequantize", "coarse.wav", "-o", "fine.mp3"], "not a WAV file"),
        (["dequantize", "coarse.wav", "-o", "no/fine.wav"], "does not exist. Create it first"),
        (["dequantize", "none.wav", "-o", "fine.wav"], "does not exist"),
        (["dequantize", "coarse.wav", "-o", "fine.wav", "--bits", 3], "pass --bits 4"),
        (["dequantize", "coarse.wav", "-o", "fine.wav", "--model", "speech"], "config.toml"),
        (["learn", "dequantize", "--out", "run"], "No sound"),
        (["learn", "dequantize", "--audio", "nothing", "--out", "run"], "holds 0 WAV files"),
    ]:
        result = bilevel(*arguments)
        assert result.exit_code == 1 and words in said(result), (arguments, result.output)


def test_sound_that_teaches_nothing_is_named(here):
    for name, samples, rate, words in [
        ("silent", np.zeros(800), 8000, "no frame of 20 ms that 4 bits tell from silence"),
        ("short", speech(0.01, 8000), 8000, "no frame of 20 ms"),
        ("slow", speech(20, 10), 10, "needs 25 of them"),
    ]:
        (here / name).mkdir()
        for k in range(2):
            save(here / name / f"{k}.WAV", samples, rate)
        result = bilevel("learn", "dequantize", "--audio", name, "--out", "run")
        assert result.exit_code == 1 and words in said(result), result.output
    result = bilevel("learn", "dequantize", "--audio", "short", "--out", "run", "--bits", 8)
    assert result.exit_code == 1 and "no frame" in said(result)


def test_a_run_without_a_first_checkpoint_is_resumed(sounds):
    learned = bilevel("learn", "dequantize", "--audio", "speech", "--steps", 2, "--out", "whole")
    assert learned.exit_code == 0, learned.output
    (sounds / "cut").mkdir()
    (sounds / "cut" / "config.toml").write_bytes((sounds / "whole" / "config.toml").read_bytes())
    result = bilevel("learn", "dequantize", "--out", "cut", "--resume", "--steps", 2)
    assert result.exit_code == 0, result.output
    whole, cut = (checkpoint.read(sounds / run / "model.safetensors") for run in ("whole", "cut"))
    assert all(torch.equal(whole[name], cut[name]) for name in ("rows", "log_weight"))


def test_another_number_of_bits_than_was_learned_is_told(here):
    save(here / "fine.wav", dequantize.quantize(speech(0.1), 8), 16000)
    result = bilevel("dequantize", "fine.wav", "-o", "finer.wav", "--bits", 8)
    assert result.exit_code == 0 and "learned from sound of 4 bits" in said(result)


@pytest.mark.parametrize(
    "state",
    [
        {"rows": torch.ones(4), "log_weight": torch.ones(4)},
        {"rows": torch.ones(0, 4), "log_weight": torch.ones(0)},
        {"rows": torch.ones(3, 4), "log_weight": torch.full((3,), -1e3)},
        {"rows": torch.ones(3, 4), "log_weight": None},
        [torch.ones(3, 4)],
    ],
    ids=str,
)
def test_what_is_no_dequantiser_is_refused(tmp_path, state):
    shutil.copy(MODELS / dequantize.SHIPPED / "config.toml", tmp_path)
    checkpoint.write(tmp_path / "model.safetensors", state)
    with pytest.raises(ValueError, match="is not a run of"):
        dequantize.load(tmp_path)


def test_a_config_without_data_is_refused(tmp_path):
    shutil.copytree(MODELS / dequantize.SHIPPED, tmp_path / "run")
    path = tmp_path / "run" / "config.toml"
    path.write_text('task = "dequantize"\ndata = "x"\n')
    with pytest.raises(ValueError, match="is not a run of"):
        dequantize.load(tmp_path / "run")


def test_sounds_shorter_than_a_frame_are_no_evaluation(sounds):
    shutil.copytree(MODELS / dequantize.SHIPPED, sounds / "kept")
    (sounds / "short").mkdir()
    save(sounds / "short" / "a.wav", speech(0.01))
    result = bilevel("evaluate", "kept", "--audio", "short", "--force")
    assert result.exit_code == 1 and "as long as a frame of 20 ms" in said(result), result.output
