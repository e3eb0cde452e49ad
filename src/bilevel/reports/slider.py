"""The slider of a report: one picture, seen with many weights.

All pictures are in the page; the few lines of JavaScript in the template show the chosen one.
Without JavaScript the page shows the picture of the learned weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from bilevel.learning import read_metrics
from bilevel.tasks import runs, sweep
from bilevel.tasks.sweep import CLEAN, SEEN, Frame, Sweep
from bilevel.tasks.task import weight_at

from . import figures
from .page import note, tile, tiles


@dataclass(frozen=True)
class Shown:
    """A picture on the slider."""

    pixels: np.ndarray  # (H, W)
    weight: float
    text: str


def slider(
    shown: Sequence[Shown], chosen: int, told: str, given: str, clean: str = "", curve: str = ""
) -> str:  # all text is HTML
    """The picture `chosen`, until the slider moves; beside it tiles, below it a curve."""
    pictures = "".join(
        f'<img src="{figures.picture(one.pixels)}" alt="With {escape(one.text)}" '
        f'data-value="{one.weight:.6g}" data-text="{escape(one.text)}"'
        f"{'' if k == chosen else ' hidden'}>"
        for k, one in enumerate(shown)
    )
    caption = f"<figcaption>{escape(shown[chosen].text)}</figcaption>"
    frames = f'<figure class="frames">{pictures}{caption}</figure>'
    return (
        '<div class="slider" data-name="weight">'
        f"{tiles([given, frames, clean], 'three' if clean else 'wide')}{curve}"
        '<p class="control" hidden><label for="weight">weight</label>'
        f'<input id="weight" type="range" min="0" max="{len(shown) - 1}" step="1" '
        f'value="{chosen}"></p>{note(f"{told} Move with the mouse or the arrow keys.")}</div>'
    )


def section(run: Path) -> str:
    """The slider of what `bilevel.tasks.sweep` left in a run folder; empty if nothing."""
    found = sweep.read(run)
    if found is None:
        return ""
    level, path, (model, _) = found.frames[0].noise, [], runs.load(run)
    for row in read_metrics(run):
        for name, parameter in model.named_parameters():
            if name in row:  # the tables of a model have no column
                parameter.data.fill_(row[name])
        path.append(weight_at(model, level))
    return of_sweep(found, path)


def of_sweep(found: Sweep, path: Sequence[float]) -> str:
    """`path`: the weights that learning went through, marked on the curve."""
    frames = found.frames
    chosen = min(range(len(frames)), key=lambda k: abs(math.log(frames[k].factor)))
    shown = [Shown(found.pictures[str(k)], f.weight, text(f)) for k, f in enumerate(frames)]
    noise = f"{frames[0].noise:g}"
    seen, clean = (figures.picture(found.pictures[name]) for name in (SEEN, CLEAN))
    given = tile(seen, f"What is given, with noise {noise}", f"given, noise {noise}")
    told = (
        "The curve is the PSNR over the weight, on a logarithmic scale; the filled ring is the "
        "learned weight, the ticks below are the weights on the way to it."
    )
    clean = tile(clean, "The clean picture", "clean")
    return slider(shown, chosen, told, given, clean, _curve(frames, chosen, path))


def text(frame: Frame) -> str:
    mark = ", learned" if frame.factor == 1 else ""
    return f"weight {frame.weight:.3g}{mark}: {frame.psnr:.2f} dB, SSIM {frame.ssim:.3f}"


def _curve(frames: Sequence[Frame], chosen: int, path: Sequence[float]) -> str:
    """PSNR over the weight, each point above its place on the slider."""
    low, high = min(f.psnr for f in frames), max(f.psnr for f in frames)
    steps = (len(frames) - 1) or 1
    first, last = (math.log(frames[k].weight) for k in (0, -1))

    def place(k: float) -> float:  # per cent from the left
        return 100 * k / steps

    def height(frame: Frame) -> float:  # per cent from the top
        return 100 * (high - frame.psnr) / ((high - low) or 1)

    points = " ".join(f"{place(k):.2f},{height(f):.2f}" for k, f in enumerate(frames))
    dots = "".join(
        f'<i class="dot{" learned" * (k == chosen)}{" on" * (k == chosen)}" '
        f'style="left:{place(k):.2f}%;top:{height(f):.2f}%"></i>'
        for k, f in enumerate(frames)
    )
    where = [(math.log(w) - first) / ((last - first) or 1) for w in path if w > 0]
    ticks = "".join(
        f'<i class="tick" style="left:{100 * t:.2f}%"></i>' for t in where if 0 <= t <= 1
    )
    return (
        '<div class="curve" aria-hidden="true">'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none"><polyline points="{points}"/></svg>'
        f'{dots}{ticks}<b class="top">{high:.1f} dB</b><b class="bottom">{low:.1f} dB</b></div>'
    )
