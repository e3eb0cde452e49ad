"""How good a dequantiser is on sounds that it has not learned from."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilevel.layers import Dequantize
from bilevel.learning.checkpoint import write_bytes
from bilevel.tasks import audio
from bilevel.tasks.audio import Audio, AudioError
from bilevel.tasks.dequantize import (
    SECONDS,
    frame_size,
    load,
    quantize,
    radius,
    restore,
    smooth,
)

QUANTIZED, SMOOTHED, LEARNED = "quantised", "5-tap mean, cut to the cells", "learned"
SECONDS_SHOWN = 4.0  # of the sound that the report plays


@dataclass(frozen=True)
class Errors:
    """Mean squared errors of a method, and the ratio of signal to error in dB."""

    method: str
    speech: float  # frames with a sample outside the two innermost cells
    all: float
    snr: float  # of all


def scaled(sound: Audio) -> Audio:
    """Each channel over its largest value."""
    largest = np.abs(sound.samples).max(1, keepdims=True)
    return sound.with_samples(sound.samples / np.maximum(largest, 1e-12))


def answers(model: Dequantize, clean: Audio, bits: int) -> dict[str, Audio]:
    """What each method makes of the quantised sound."""
    coarse = clean.with_samples(quantize(clean.samples, bits))
    n = frame_size(clean)
    count = -(-clean.samples.shape[1] // n)
    wide = np.pad(coarse.samples, [(0, 0), (0, count * n - clean.samples.shape[1])], mode="edge")
    frames = smooth(wide.reshape(len(wide), count, n), bits)
    mean = frames.reshape(len(wide), -1)[:, : clean.samples.shape[1]]
    return {
        QUANTIZED: coarse,
        SMOOTHED: clean.with_samples(mean),
        LEARNED: restore(model, coarse, bits),
    }


def judge(
    model: Dequantize,
    sounds: list[Audio],
    bits: int,
    run: str | Path,
    tick: Callable[[], object] = lambda: None,
) -> list[Errors]:
    """Errors over all the sounds; with the first sound they go into RUN/evaluation."""
    folder = Path(run) / "evaluation"
    folder.mkdir(exist_ok=True)
    frames: list[dict[str, np.ndarray]] = []  # of each sound, (frames,) each
    for sound in map(scaled, sounds):
        made = {"clean": sound, **answers(model, sound, bits)}
        if not frames:
            for name, answer in made.items():
                short = answer.samples[:, : round(SECONDS_SHOWN * sound.rate)]
                piece = Audio(short, sound.rate, np.dtype(np.int16))
                write_bytes(folder / file_name(name), audio.encode(piece))
        frames.append(_by_frame(made, bits))
        tick()
    rows = _errors({key: np.concatenate([part[key] for part in frames]) for key in frames[0]})
    told = [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]
    text = json.dumps(told, indent=2)
    write_bytes(folder / "errors.json", f"{text}\n".encode())
    return rows


def _by_frame(made: dict[str, Audio], bits: int) -> dict[str, np.ndarray]:  # -> (frames,) each
    """Mean squares, of the clean sound and of each method's error, and where there is speech."""
    clean = made["clean"]
    n = frame_size(clean)

    def cut(samples: np.ndarray) -> np.ndarray:
        return samples[:, : samples.shape[1] // n * n].reshape(-1, n)

    found: dict[str, Any] = {"speech": (np.abs(cut(clean.samples)) >= 2 * radius(bits)).any(1)}
    for name, answer in made.items():
        error = answer.samples if answer is clean else answer.samples - clean.samples
        found[name] = np.square(cut(error)).mean(1)
    return found


def _errors(frames: dict[str, np.ndarray]) -> list[Errors]:
    """Of all frames, a row a method."""
    if not len(frames["clean"]):
        raise AudioError(f"No sound to judge by is as long as a frame of {1000 * SECONDS:g} ms.")
    loud, total = frames.pop("speech"), frames.pop("clean").mean()
    rows = []
    for name, error in frames.items():
        told = float(error[loud].mean()) if loud.any() else float("nan")
        snr = 10 * float(np.log10(total / max(error.mean(), 1e-30)))
        rows.append(Errors(name, told, float(error.mean()), snr))
    return rows


def described(run: str | Path) -> list[str]:
    """What a run folder holds, in words."""
    model, config = load(run)
    data, (m, n) = config["data"], model.rows.shape
    return [
        f"{run}: a dequantiser for {data['bits']} bits, learned with bilevel {config['bilevel']}",
        f"  learned from  {data['frames']} frames of speech from {data['audio']}",
        f"  parameters    K, {m} x {n}, for frames of {n} samples at {data['rate']} a second",
        *(f"  {row.speech:.3e} in speech, {row.all:.3e} in all  {row.method}"
          for row in read_errors(run)),
    ]  # fmt: skip


def file_name(method: str) -> str:
    return {QUANTIZED: "quantised", SMOOTHED: "smoothed"}.get(method, method) + ".wav"


def read_errors(run: str | Path) -> list[Errors]:
    path = Path(run) / "evaluation" / "errors.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    told = [{k: math.nan if v is None else v for k, v in row.items()} for row in rows]
    return [Errors(**row) for row in told]  # type: ignore[arg-type]
