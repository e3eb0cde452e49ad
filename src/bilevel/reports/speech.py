"""report.html of a run of `bilevel learn dequantize`: spectrograms, players, errors."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from bilevel.learning import read_config, read_metrics
from bilevel.tasks import audio, hearing
from bilevel.tasks.audio import Audio
from bilevel.tasks.dequantize import load

from . import figures
from .page import html_table, note, page, provenance, tile, tiles

_WINDOW = 320  # samples of a column of the spectrogram
_DECIBELS = (-100.0, -20.0)  # the darkest and the brightest of its colours


def write(run: str | Path) -> Path:
    """Writes RUN/report.html and returns its path."""
    run = Path(run)
    config, rows = read_config(run), hearing.read_errors(run)
    data = config.get("data", {})
    heading = f"A dequantiser for {data.get('bits', '?')} bits, learned from speech"
    sections = [
        ("How it looks and sounds", _sounds(run, rows)),
        ("How good", _errors(rows)),
        ("Learning", _learning(run)),
        *provenance(run, config),
    ]
    return page(run / "report.html", escape(heading), _summary(rows), sections)


def _summary(rows: list[hearing.Errors]) -> str:
    if not rows:
        return "Not judged yet."
    at = {row.method: row for row in rows}
    before, after = at[hearing.QUANTIZED], at[hearing.LEARNED]
    return (
        f"On sounds it has not learned from it lowers the mean squared error in speech from "
        f"{before.speech:.3e} to <strong>{after.speech:.3e}</strong>, and raises the ratio of "
        f"signal to error from {before.snr:.1f} to <strong>{after.snr:.1f} dB</strong>."
    )


def _sounds(run: Path, rows: list[hearing.Errors]) -> str:
    shown = []
    for name in ("clean", *(row.method for row in rows)):
        path = run / "evaluation" / hearing.file_name(name)
        if not path.exists():
            continue
        sound = audio.read(path)
        player = figures.uri("audio/wav", path.read_bytes())
        caption = f'{escape(name)}<audio controls preload="none" src="{player}"></audio>'
        shown.append(tile(spectrogram(sound), f"Spectrogram, {name}", caption))
    return "".join(tiles(shown[k : k + 2]) for k in range(0, len(shown), 2))


def spectrogram(sound: Audio) -> str:
    """Power over time and frequency, in dB of the full scale."""
    levels = decibels(sound.samples[0])
    seconds, top = sound.samples.shape[1] / sound.rate, sound.rate / 2000

    def draw(axes: Any) -> None:
        axes.imshow(
            levels, origin="lower", aspect="auto", extent=(0, seconds, 0, top), cmap="magma",
            vmin=_DECIBELS[0], vmax=_DECIBELS[1], interpolation="nearest",
        )  # fmt: skip
        axes.grid(False)
        axes.set(xlabel="seconds", ylabel="kHz")

    return figures.figure(draw)


def decibels(samples: np.ndarray) -> np.ndarray:  # (n,) -> (frequencies, times)
    padded = np.pad(samples, (0, max(_WINDOW - len(samples), 0)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[:: _WINDOW // 2]
    window = np.hanning(_WINDOW)
    spectrum = np.abs(np.fft.rfft(frames * window, axis=1)) * 2 / window.sum()
    return 20 * np.log10(np.maximum(spectrum.T, 1e-10))


def _errors(rows: list[hearing.Errors]) -> str:
    if not rows:
        return ""
    head = ["method", "error in speech", "error in all", "signal / error"]
    lines = [[r.method, f"{r.speech:.3e}", f"{r.all:.3e}", f"{r.snr:.1f} dB"] for r in rows]
    return html_table(head, lines) + note(
        "Mean squared errors, full scale 1. Frames of 20 ms count as speech where a sample lies "
        "outside the two innermost cells; in the others 0 is as simple as a signal can be."
    )


def _learning(run: Path) -> str:
    history = read_metrics(run)
    if not history:
        return ""
    width = max(len(history) // 60, 1)  # a batch is small, and its loss noisy: means of many
    ends = range(width, len(history) + 1, width)
    means = [float(np.mean([row["loss"] for row in history[k - width : k]])) for k in ends]
    image = figures.curves(
        {"loss": (list(ends), means)}, xlabel="step", ylabel="share of the error left"
    )
    alt = f"The loss falls from {means[0]:.4g} to {means[-1]:.4g} in {len(history)} steps."
    caption = f"mean over {width} steps each: squared error over that of a value anywhere in a cell"
    return tiles([tile(image, alt, caption), _weights(run)])


def _weights(run: Path) -> str:
    model, _ = load(run)
    weights = model.weight.tolist()
    rows = {"weight": (list(range(len(weights))), weights)}
    image = figures.curves(rows, xlabel="row of K, from low to high frequencies", ylabel="weight")
    alt = f"The weights of K's rows, {min(weights):.3g} to {max(weights):.3g}."
    return tile(image, alt, "the weight of each row of K in |K u|")
