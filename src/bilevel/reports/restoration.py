"""The report of a model learned to restore images: to denoise or deblur them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from bilevel.layers import FilterDenoise
from bilevel.learning import read_config
from bilevel.tasks import evaluation, images, runs
from bilevel.tasks.evaluation import CLEAN, GRID, LEARNED, NOISY
from bilevel.tasks.task import weight_at

from . import figures, filters, slider
from .page import html_table, learning_curves, note, page, provenance, tile, tiles


def write(run: str | Path) -> Path:
    """Writes RUN/report.html and returns its path."""
    run = Path(run)
    config = read_config(run)
    rows = evaluation.read_rows(run)
    sections = [
        ("What the weight does", slider.section(run)),
        ("The filters", filters.section(run)),
        ("Before and after", _pictures(run, rows, _classical(config))),
        ("How good", _table(rows)),
        ("Learning", _learning(run)),
        *provenance(run, config),
    ]
    return page(run / "report.html", _heading(config), _summary(rows, _classical(config)), sections)


def _heading(config: Mapping[str, Any]) -> str:
    data = config.get("data", {})
    noise = str(data.get("noise", "?")).replace(":", " to ")
    maker = runs.task_of(config).maker
    return escape(f"A {maker} learned from {data.get('crops', '?')} crops, noise {noise}")


def _classical(config: Mapping[str, Any]) -> str:
    """The classical method that stands beside the learned one."""
    return next(iter(runs.task_of(config).classical()))


def _summary(rows: Sequence[evaluation.Row], classical: str) -> str:
    """One sentence: what it was worth."""
    table = evaluation.means(rows)
    learned = _learned_name(table)
    if learned is None or NOISY not in table:
        return "Not evaluated yet: <code>bilevel evaluate RUN --images DIR</code>."
    level = _middle(rows)
    count = len({row.image for row in rows})
    before, after = table[NOISY][level][0], table[learned][level][0]
    text = (
        f"On {count} image{'s' * (count > 1)}, at noise {level:g} of 255, it raises the mean PSNR "
        f"from {before:.2f} to <strong>{after:.2f} dB</strong>"
    )
    if GRID in table:
        text += f"; the best weight of a grid search reaches {table[GRID][level][0]:.2f} dB"
    if classical in table:
        text += f", {classical} {table[classical][level][0]:.2f} dB"
    return text + "."


def _pictures(run: Path, rows: Sequence[evaluation.Row], classical: str) -> str:
    folder, level = run / "evaluation", _middle(rows)
    html = []
    for name in dict.fromkeys(row.image for row in rows):
        clean_path = evaluation.picture_path(folder, name, CLEAN)
        if not clean_path.exists():
            continue
        clean = images.read(clean_path).pixels
        here = [r for r in rows if r.image == name and r.noise == level]
        learned = _learned_name(row.method for row in here)
        shown = [tile(figures.picture(clean), f"{name}, clean", "clean")]
        for row in here:
            path = evaluation.picture_path(folder, name, row.method)
            if row.method not in (NOISY, learned, classical) or not path.exists():
                continue
            pixels = images.read(path).pixels
            quality = f"<small>{row.psnr:.2f} dB, SSIM {row.ssim:.3f}</small>"
            error = figures.error_map(pixels, clean), f"{name}, error of {row.method}"
            shown.append(
                tile(
                    figures.picture(pixels), f"{name}, {row.method}",
                    f"{escape(row.method)}<br>{quality}", error,
                )
            )  # fmt: skip
        html.append(f"<h3>{escape(name)}, noise {level:g}</h3>{tiles(shown, '')}")
    if not html:
        return ""
    return "".join(html) + note(
        "Below each picture its error: black is none, the brightest colour is an error of "
        f"{figures.WORST:g} or more, where white is 1."
    )


def _table(rows: Sequence[evaluation.Row]) -> str:
    if not rows:
        return ""
    count = len({row.image for row in rows})
    told = note(
        f"Mean of PSNR in dB and of SSIM over {count} images; larger is better. "
        "Every method got the same noisy images; the classical ones were told the noise level."
    )
    head = ["image", "noise", "method", "PSNR", "SSIM"]
    lines = [[r.image, f"{r.noise:g}", r.method, f"{r.psnr:.2f}", f"{r.ssim:.4f}"] for r in rows]
    every = f"<details><summary>Every image</summary>{html_table(head, lines)}</details>"
    return _means_table(evaluation.means(rows)) + told + every


def _means_table(table: Mapping[str, Mapping[float, tuple[float, float]]]) -> str:
    levels = list(dict.fromkeys(level for values in table.values() for level in values))
    best = {
        (level, k): max(values[level][k] for values in table.values() if level in values)
        for level in levels
        for k in (0, 1)
    }

    def cell(values: Mapping[float, tuple[float, float]], level: float) -> str:
        if level not in values:
            return ""
        texts = []
        for k, digits in ((0, 2), (1, 3)):
            text = f"{values[level][k]:.{digits}f}"
            top = text == f"{best[level, k]:.{digits}f}"
            texts.append(f"<strong>{text}</strong>" if top else text)
        return f'<span class="n">{texts[0]} <small>/ {texts[1]}</small></span>'

    head = ["method", *(f"noise {level:g}" for level in levels)]
    lines = [[escape(m), *(cell(v, level) for level in levels)] for m, v in table.items()]
    return html_table(head, lines, escaped=True)


def _learning(run: Path) -> str:
    """Loss and parameters over the steps, of this run and of those kept inside its folder."""
    html = []
    inner = sorted(path.parent for path in run.glob("*/config.toml"))
    for folder in (run, *inner):
        caption = "loss: squared error over the noise's variance"
        curves = learning_curves(folder, "share of the noise left", caption)
        if curves and folder != run:
            html.append(f"<h3>The run in the folder “{escape(folder.name)}”</h3>")
        html.append(curves)
    return "".join(html) + _weights(run)


def _weights(run: Path) -> str:
    """The grid search, and the weight over the noise level: learned and best of the grid."""
    grids = evaluation.read_grids(run)
    if not grids:
        return ""
    model, _ = runs.load(run)
    losses = {f"noise {grid.noise:g}": (grid.weights, grid.losses) for grid in grids}
    levels = sorted({grid.noise for grid in grids} | set(runs.Job.of_run(run).ends))
    shown = [
        tile(
            figures.curves(losses, xlabel="weight", ylabel="share of the noise left", log="x"),
            "The loss over the weights of the grid search, one curve a noise level.",
            "the grid search for TV, on the crops that were learned from",
        )
    ]
    if not isinstance(model, FilterDenoise):  # whose weight is of other filters
        learned = {"learned": (levels, [weight_at(model, level) for level in levels])}
        best = {"best of the grid": ([g.noise for g in grids], [g.best for g in grids])}
        image = figures.curves(learned, xlabel="noise", ylabel="weight", points=best, log="xy")
        alt = "The learned weight over the noise level, and the best weights of the grid search."
        shown.append(tile(image, alt, "the learned weight over the noise level"))
    return f"<h3>Against a grid search</h3>{tiles(shown)}"


def _middle(rows: Sequence[evaluation.Row]) -> float:
    levels = list(dict.fromkeys(row.noise for row in rows))
    return levels[len(levels) // 2] if levels else math.nan


def _learned_name(methods: Iterable[str]) -> str | None:
    return next((name for name in methods if name.startswith(tuple(LEARNED.values()))), None)
