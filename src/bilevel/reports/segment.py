"""report.html of a run of `bilevel learn segment`: strokes, regions, scores, what was learned."""

from __future__ import annotations

from html import escape
from pathlib import Path

from bilevel.learning import read_config
from bilevel.tasks import images, regions
from bilevel.tasks.evaluation import picture_path

from . import figures
from .page import html_table, learning_curves, note, page, provenance, tile, tiles

SHOWN = 4  # images


def write(run: str | Path) -> Path:
    """Writes RUN/report.html and returns its path."""
    run = Path(run)
    config, scores = read_config(run), regions.read_scores(run)
    curves = learning_curves(
        run, "doubt", "loss: -log of the right region's share, averaged over the pixels"
    )
    sections = [
        ("Regions", _pictures(run, scores)),
        ("How good", _table(scores)),
        ("Learning", curves),
        *provenance(run, config),
    ]
    heading = f"A segmenter learned from {config.get('count', '?')} images"
    return page(run / "report.html", escape(heading), _summary(scores), sections)


def _summary(scores: list[regions.Score]) -> str:
    if not scores:
        return "Not judged yet."
    mean = regions.means(scores)
    count = len({score.image for score in scores})
    return (
        f"On {count} image{'s' * (count > 1)} that it has not learned from the mean intersection "
        f"over union of its regions with those of people is "
        f"<strong>{mean[regions.LEARNED]:.3f}</strong>; with the hand-tuned numbers it is "
        f"{mean[regions.HAND]:.3f}."
    )


def _pictures(run: Path, scores: list[regions.Score]) -> str:
    told = {(score.image, score.method): f"{score.iou:.3f}" for score in scores}
    html = []
    for name in list(dict.fromkeys(score.image for score in scores))[:SHOWN]:
        shown = []
        for method in (regions.STROKES, regions.PEOPLE, regions.HAND, regions.LEARNED):
            pixels = images.read(picture_path(run / "evaluation", name, method)).pixels
            caption = escape(f"{method} {told.get((name, method), '')}")
            shown.append(tile(figures.picture(pixels), f"{name}, {method}", caption))
        html.append(f"<h3>{escape(name)}</h3>{tiles(shown, '')}")
    return "".join(html)


def _table(scores: list[regions.Score]) -> str:
    if not scores:
        return ""
    told = {(score.image, score.method): f"{score.iou:.3f}" for score in scores}
    mean = {method: f"{value:.3f}" for method, value in regions.means(scores).items()}
    names = dict.fromkeys(score.image for score in scores)
    lines = [[name, *(told[name, method] for method in mean)] for name in names]
    table = html_table(["image", *mean], [*lines, ["mean", *mean.values()]])
    return table + note(
        "Intersection over union with the regions of people, over the pixels without strokes, "
        "averaged over the regions; larger is better. The strokes are made up."
    )
