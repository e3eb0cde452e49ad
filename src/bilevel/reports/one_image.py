"""The page beside an image that `bilevel denoise`, `deblur` or `inpaint` has restored."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

import numpy as np

from bilevel.differentiation import Certificate
from bilevel.tasks.restorer import ByWeight, Restored, Restorer

from . import figures
from .page import certificate_table, html_table, note, page, tile, tiles, versions
from .slider import Shown, slider

SIDE = 1024  # of the largest picture: a page should open at once
FORWARD = ("solver", "gap", "residual", "iterations", "converged", "contraction", "distance")


def write(
    path: Path, heading: str, restored: Restored, restorer: Restorer, made: Mapping[str, object]
) -> Path:
    """Writes the page and returns its path. `made`: from what, with which options (None: not
    given). Solves again, for the slider."""
    lines = [[name, str(value)] for name, value in made.items() if value is not None]
    sections = [
        ("What the weight does", _slider(restorer.by_weight(restored.given))),
        ("Before and after", _pictures(restored, restorer)),
        ("How far the result can be trusted", _certificate(restored.certificate)),
        ("How it was made", html_table(["", ""], lines)),
        ("Versions", versions()),
    ]
    return page(path, escape(heading), _summary(restored), sections)


def _summary(restored: Restored) -> str:
    height, width = restored.given.pixels.shape[:2]
    gap = restored.certificate.as_dict().get("gap")
    told = (
        "" if gap is None else f" Its energy is within <strong>{gap:.1e}</strong> of the least "
        "possible, relatively: that is proved by a duality gap."
    )  # fmt: skip
    return f"{height} x {width} pixels{escape(restored.told)}.{told}"


def _slider(found: ByWeight | None) -> str:
    if found is None:
        return ""
    chosen = len(found.pictures) // 2
    shown = [
        Shown(picture, weight, f"weight {weight:.3g}{', taken' * (k == chosen)}")
        for k, (weight, picture) in enumerate(found.pictures.items())
    ]
    given = tile(figures.picture(found.given), "What is given", "given")
    return slider(shown, chosen, "The middle of the image, in gray.", given)


def _pictures(restored: Restored, restorer: Restorer) -> str:
    given, result = restored.given.pixels, restored.result.pixels
    times = -(-max(given.shape[:2]) // SIDE)
    first, last = smaller(given, times), smaller(result, times)
    both = [
        tile(figures.picture(first), "The image as given", "given"),
        tile(figures.picture(last), "The result", "result"),
    ]
    others = [tile(figures.error_map(last, first), "What has changed", "what has changed")]
    for name, pixels in restorer.known().items():
        others.append(tile(figures.picture(larger(pixels)), name, escape(name)))
    told = f"Of the change black is none, the brightest colour {figures.WORST:g} or more of white."
    if times > 1:
        told += f" Pictures are shown smaller by a factor of {times}."
    return tiles(both) + tiles(others, "") + note(told)


def smaller(pixels: np.ndarray, times: int) -> np.ndarray:  # (H, W, ...) -> (H // times, ...)
    """The mean of each times x times pixels."""
    height, width = (max(n // times, 1) for n in pixels.shape[:2])
    rows, columns = (min(times, n) for n in pixels.shape[:2])
    cut = pixels[: height * rows, : width * columns]
    return cut.reshape(height, rows, width, columns, *pixels.shape[2:]).mean((1, 3))


def larger(pixels: np.ndarray) -> np.ndarray:  # (h, w), of any size
    """A small picture, such as a kernel, with pixels that can be told apart."""
    times = max(256 // max(pixels.shape), 1)
    return np.kron(pixels, np.ones((times, times)))


def _certificate(certificate: Certificate) -> str:
    values = certificate.as_dict()
    table = certificate_table({name: values[name] for name in FORWARD if name in values})
    return table + note("A sample is a colour channel; each is restored alone.")
