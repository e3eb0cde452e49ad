"""The pictures of a report, as data URIs: curves by matplotlib, images and error maps as WebP."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

WORST = 0.25  # the error that an error map shows brightest
COLOURS = ("#1f5fa8", "#c8611a", "#2f7d4f", "#777777", "#8a4fa3")

Curve = tuple[Sequence[float], Sequence[float]]  # x, y


def uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(pixels: np.ndarray) -> str:
    """(H, W) or (H, W, 3) in [0, 1], exactly: WebP without loss is a quarter smaller than PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.rint(pixels.clip(0, 1) * 255).astype(np.uint8)).save(
        stream, "WEBP", lossless=True, method=4
    )
    return uri("image/webp", stream.getvalue())


def error_map(result: np.ndarray, clean: np.ndarray) -> str:
    """|result - clean|, averaged over colours: black for none, bright for WORST and more."""
    from matplotlib import colormaps

    error = np.abs(result - clean)
    error = error.mean(-1) if error.ndim == 3 else error
    levels = np.rint((error / WORST).clip(0, 1) * 15) / 15  # few levels: small files
    return picture(colormaps["magma"](levels)[..., :3])


def curves(
    lines: Mapping[str, Curve],
    *,
    xlabel: str,
    ylabel: str,
    points: Mapping[str, Curve] | None = None,
    log: str = "",  # "x", "y", "xy"
) -> str:
    """Lines, and points on top of them, as SVG."""

    def draw(axes: Any) -> None:
        for (label, (x, y)), colour in zip(lines.items(), cycle(COLOURS), strict=False):
            axes.plot(x, y, color=colour, label=label, marker="." if len(x) < 60 else "")
        for label, (x, y) in (points or {}).items():
            axes.plot(x, y, "o", color="black", markerfacecolor="none", markersize=9, label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if "x" in log:
            axes.set_xscale("log")
        if "y" in log:
            axes.set_yscale("log")
        if xlabel == "step":
            axes.xaxis.get_major_locator().set_params(integer=True)
        for axis, name in ((axes.xaxis, "x"), (axes.yaxis, "y")):
            if name in log:
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter("")
        if points and "x" in log:
            axes.set_xticks(sorted({v for x, _ in (*points.values(), *lines.values()) for v in x}))
        if len(lines) + len(points or {}) > 1:
            axes.legend(frameon=False)

    return figure(draw)


def figure(draw: Callable[[Any], None]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    style: dict[Any, Any] = {
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e4e4e4",
        "svg.hashsalt": "bilevel",  # the same file for the same numbers
        "axes.formatter.useoffset": False,
    }
    with rc_context(style):
        canvas = Figure(figsize=(5.2, 3.2), layout="constrained")
        draw(canvas.subplots())
        stream = io.BytesIO()
        canvas.savefig(stream, format="svg", metadata={"Date": None})
    return uri("image/svg+xml", stream.getvalue())
