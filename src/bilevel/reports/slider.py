"""The slider of a report: one picture, seen with many weights.

All pictures are in the page; the few lines of JavaScript in the template show the chosen one.
Without JavaScript the page shows the picture of the learned weight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

from bilevel.learning import read_metrics
from bilevel.tasks import runs, sweep
from bilevel.tasks.sweep import CLEAN, SEEN, Frame, Sweep
from bilevel.tasks.task import weight_at

from . import figures


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
    return slider(found, path)


def slider(found: Sweep, path: Sequence[float]) -> str:
    """`path`: the weights that learning went through, marked on the curve."""
    frames = found.frames
    chosen = min(range(len(frames)), key=lambda k: abs(math.log(frames[k].factor)))
    pictures = "".join(
        f'<img src="{figures.picture(found.pictures[str(k)])}" alt="With {escape(text(frame))}" '
        f'data-value="{frame.weight:.6g}" data-text="{escape(text(frame))}"'
        f"{'' if k == chosen else ' hidden'}>"
        for k, frame in enumerate(frames)
    )
    seen, clean = (figures.picture(found.pictures[name]) for name in (SEEN, CLEAN))
    noise = f"{frames[0].noise:g}"
    return (
        '<div class="slider" data-name="weight"><div class="tiles three">'
        f'<figure><img src="{seen}" alt="What is given, with noise {noise}">'
        f"<figcaption>given, noise {noise}</figcaption></figure>"
        f'<figure class="frames">{pictures}'
        f"<figcaption>{escape(text(frames[chosen]))}</figcaption></figure>"
        f'<figure><img src="{clean}" alt="The clean picture"><figcaption>clean</figcaption>'
        "</figure></div>"
        f"{_curve(frames, chosen, path)}"
        '<p class="control" hidden><label for="weight">weight</label>'
        f'<input id="weight" type="range" min="0" max="{len(frames) - 1}" step="1" '
        f'value="{chosen}"></p>'
        '<p class="note">The curve is the PSNR over the weight, on a logarithmic scale; the filled '
        "ring is the learned weight, the ticks below are the weights on the way to it. Move with "
        "the mouse or the arrow keys.</p></div>"
    )


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
