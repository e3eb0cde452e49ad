"""Dequantisation: sound of a few bits, refined within the cells that its samples were rounded to.

The quantiser is mid-rise: 2^bits cells of equal width on [-1, 1], each sample becomes the middle of
its cell. There is no level 0: silence becomes +-half a cell.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel import learning
from bilevel.differentiation import Unroll
from bilevel.layers import Dequantize
from bilevel.learning.learn import LearnResult
from bilevel.learning.learn import learn as learn_parameters
from bilevel.learning.run_folder import Record
from bilevel.tasks import MODELS, check_task
from bilevel.tasks.audio import Audio, AudioError
from bilevel.tasks.windows import Windows

NAME = "dequantize"
SECONDS = 0.02  # of a frame
STEPS = 30  # of the solver: a model is learned for as many as it is used with
OVERLAP = 4  # frames that see a sample: a sixth less error than frames side by side
HALVED = 700  # steps of learning after which its step sizes have halved
GROUP, BATCH = 4, 8  # frames an item, items a batch
SHIPPED = "dequantize_4bit"


def radius(bits: int) -> float:
    """Half a cell."""
    if not 1 <= bits <= 16:
        raise ValueError(f"--bits is {bits}: give a whole number from 1 to 16.")
    return 2.0**-bits


def quantize(samples: np.ndarray, bits: int) -> np.ndarray:
    """Values in [-1, 1] -> the middles of their cells."""
    half = radius(bits)
    cells = np.floor(samples / (2 * half)).clip(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (cells + 0.5) * 2 * half


def check_levels(audio: Audio, bits: int) -> None:
    """Raise where the samples are not the middles of cells, up to what 16 bits can tell."""
    off = np.abs(audio.samples - quantize(audio.samples, bits)) > 2.0**-15
    if not off.any():
        return
    fitting = (b for b in range(1, 13) if _fits(audio, b))
    found = next((f"They fit {b} bits: pass --bits {b}." for b in fitting), None)
    raise AudioError(
        f"{audio.path}: {off.mean():.0%} of the samples are not at one of the {2**bits} levels of "
        f"a mid-rise quantiser of {bits} bits, (k + 1/2) / {2 ** (bits - 1)}. "
        + (found or "They fit no number of bits: this is not sound that was quantised so.")
    )


def _fits(audio: Audio, bits: int) -> bool:
    return bool((np.abs(audio.samples - quantize(audio.samples, bits)) <= 2.0**-15).all())


# -------------------------------------------------------------------------------------- models


def cosines(n: int) -> Tensor:  # (n, n), float64
    """The orthonormal DCT-II: row k is the k-th cosine."""
    k, t = torch.arange(n).double()[:, None], torch.arange(n).double() + 0.5
    C = math.sqrt(2 / n) * (math.pi / n * k * t).cos()
    C[0] *= math.sqrt(0.5)
    return C


def spectral(clean: Tensor, floor: float = 0.01) -> Tensor:  # (frames, n) -> (n, n)
    """The DCT with each row divided by the mean size of its coefficient in clean sound: the most
    likely independent Laplacian coefficients. The floor is in units of the full scale."""
    C = cosines(clean.shape[1]).to(clean)
    weight = 1 / ((clean @ C.mT).abs().mean(0) + floor)
    return (weight / weight.mean())[:, None] * C


def build(n: int, m: int, **options: Any) -> Dequantize:
    return Dequantize(torch.eye(max(m, n))[:m, :n] + 1e-3, **options)


def load(run: str | Path | None) -> tuple[Dequantize, dict[str, Any]]:
    """Model and config of a run folder, or of the one that comes with the package."""
    if run is None:
        run = MODELS / SHIPPED
    config, state = read_config(run), learning.read_model(run)
    if not _holds_an_operator(state):
        raise _no_run(run)
    m, n = state["rows"].shape
    model = build(n, m, steps=STEPS)
    learning.fill(model, {name: part.float() for name, part in state.items()}, run)
    return model.eval(), config


def read_config(run: str | Path) -> dict[str, Any]:
    """That of a run, which may have no model yet."""
    config = learning.read_config(run)
    check_task(run, config, NAME)
    data = config.get("data")
    if (
        config.get("task") != NAME
        or not isinstance(data, dict)
        or not {"rate", "bits"} <= set(data)
    ):
        raise _no_run(run)
    return config


def _no_run(run: str | Path) -> ValueError:
    return ValueError(
        f"{run} is not a run of `bilevel learn {NAME}`. Check the path, or learn again."
    )


def _holds_an_operator(state: object) -> bool:
    if not isinstance(state, dict) or set(state) != {"rows", "log_weight"}:
        return False
    rows, log_weight = state["rows"], state["log_weight"]
    if not isinstance(rows, Tensor) or not isinstance(log_weight, Tensor):
        return False
    shaped = rows.ndim == 2 and rows.numel() > 0 and log_weight.shape == rows.shape[:1]
    return shaped and bool((log_weight.float().exp() > 0).all())  # NaN: not either


def check_bits(run: str | Path | None, config: Mapping[str, Any], bits: int) -> None:
    """Warn of a model that has learned from another number of bits. That of 4 bits adds to the
    error of sound of 7 bits or more."""
    learned = config["data"]["bits"]
    if bits != learned:
        which = "The model that comes with the package" if run is None else f"The model in {run}"
        warnings.warn(
            f"{which} has learned from sound of {learned} bits, and this sound has {bits}: it may "
            f"get worse. Learn a model with bilevel learn {NAME} --bits {bits}.",
            stacklevel=2,
        )


# ------------------------------------------------------------------------------------- restore


@torch.no_grad()
def restore(model: Dequantize, audio: Audio, bits: int) -> Audio:
    """Every channel alone, each sample from OVERLAP frames of the model's size at any sampling
    rate: on speech of 8 and 22 kHz that did better than to resample K."""
    check_levels(audio, bits)
    half, n = radius(bits), model.rows.shape[1]
    windows = Windows(n, -(-n // OVERLAP))

    def refined(frames: Tensor) -> Tensor:
        loud = (frames.abs() > half).any(1)  # in the others u = 0, whatever K is
        fine = torch.zeros_like(frames)
        if bool(loud.any()):
            fine[loud] = model(frames[loud].to(model.rows), half).double()
        return fine

    result = np.empty_like(audio.samples)
    for channel, samples in zip(result, audio.samples, strict=True):
        x = torch.from_numpy(quantize(samples, bits))
        mean = windows.mean(x, refined)
        channel[:] = torch.minimum(torch.maximum(mean, x - half), x + half).numpy()
    return audio.with_samples(result)


def smooth(quantized: np.ndarray, bits: int) -> np.ndarray:  # (..., n) -> the same
    """What needs no model: a binomial mean of 5 samples, cut to the cells, and 0 in frames where
    every cell touches 0."""
    half = radius(bits)
    wide = np.pad(quantized, [(0, 0)] * (quantized.ndim - 1) + [(2, 2)], mode="edge")
    n = quantized.shape[-1]
    mean = np.zeros_like(quantized)
    for i, c in enumerate((1, 4, 6, 4, 1)):
        mean += c / 16 * wide[..., i : i + n]
    silent = (np.abs(quantized) <= half).all(-1, keepdims=True)
    return np.where(silent, 0.0, mean.clip(quantized - half, quantized + half))


# --------------------------------------------------------------------------------------- learn


class Frames:
    """Clean sound and what the quantiser leaves of it, GROUP frames an item: no rows of a batch, so
    that `learn` starts each solve from x, as it will be used."""

    def __init__(self, clean: np.ndarray, bits: int) -> None:  # (frames, n)
        groups = clean[: max(len(clean) // GROUP, 1) * GROUP]
        groups = groups.reshape(-1, min(GROUP, len(groups)), clean.shape[1])
        self.clean = torch.from_numpy(groups.astype(np.float32))
        self.quantized = torch.from_numpy(quantize(groups, bits).astype(np.float32))

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, index: int) -> Mapping[str, Tensor]:
        return {"clean": self.clean[index], "quantized": self.quantized[index]}


def frame_size(sound: Audio) -> int:
    """Samples in a frame."""
    n = round(SECONDS * sound.rate)
    if n < 1:
        raise AudioError(
            f"{sound.path} has {sound.rate} samples a second: a frame of {1000 * SECONDS:g} ms "
            f"needs {math.ceil(0.5 / SECONDS)} of them."
        )
    return n


def cut(sounds: list[Audio], bits: int) -> np.ndarray:  # -> (frames, n)
    """Each channel over its largest value, in frames side by side. Silent frames, whose every cell
    touches 0, are left out: their solution is 0 for any K."""
    n, frames = frame_size(sounds[0]), []
    for sound in sounds:
        if sound.rate != sounds[0].rate:
            raise AudioError(
                f"{sound.path} has {sound.rate} samples a second, {sounds[0].path} "
                f"{sounds[0].rate}. Learn from sound of one rate."
            )
        for channel in sound.samples:
            scaled = channel / max(np.abs(channel).max(), 1e-12)
            frames.append(scaled[: len(scaled) // n * n].reshape(-1, n))
    whole = np.concatenate(frames)
    loud = whole[(np.abs(whole) >= 2 * radius(bits)).any(1)]
    if not len(loud):
        raise AudioError(
            f"The {len(sounds)} sounds to learn from ({sounds[0].path}, ...) have no frame of "
            f"{1000 * SECONDS:g} ms that {bits} bits tell from silence. Give longer or louder ones."
        )
    return loud


def noise_left(half: float, model: torch.nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error over that of a value anywhere in its cell, half^2 / 3."""
    x, clean = batch["quantized"].flatten(0, 1), batch["clean"].flatten(0, 1)
    return (model(x, half) - clean).square().mean() / (half**2 / 3)


def learn(
    sounds: list[Audio],
    bits: int,
    out: str | Path | None,
    *,
    data: Mapping[str, Any],  # of config.toml: where the sounds are from
    steps: int = 3000,
    seed: int = 0,
    resume: bool = False,
    progress: bool = True,
    on_step: Callable[[int, Record], object] | None = None,
) -> LearnResult:
    """Learns K by Adam from the spectral start, by the relaxed derivative of all steps."""
    clean = cut(sounds, bits)
    frames = Frames(clean, bits)
    start = spectral(torch.from_numpy(clean)).float()
    model = Dequantize(start, steps=STEPS, relaxed=True, diff=Unroll())
    config = {
        "task": NAME,
        "bilevel": metadata.version("bilevel"),
        "data": {**data, "bits": bits, "rate": sounds[0].rate, "frames": len(clean)},
    }
    return learn_parameters(
        model,
        frames,
        partial(noise_left, radius(bits)),
        optimizer=_adam,
        steps=steps,
        batch_size=min(BATCH, len(frames)),
        seed=seed,
        out=out,
        resume=resume,
        config=config,
        progress=progress,
        on_step=on_step,
    )


def _adam(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    rows, log_weight = parameters
    return _Shrinking([{"params": [rows], "lr": 7e-4}, {"params": [log_weight], "lr": 7e-3}])


class _Shrinking(torch.optim.Adam):
    """Adam whose step sizes halve every `HALVED` steps."""

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        for group in self.param_groups:
            group["lr"] *= 0.5 ** (1 / HALVED)
        return loss
