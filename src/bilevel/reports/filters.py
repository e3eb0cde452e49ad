"""The filters of the report: those that were learned, beside the DCT that they began as."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from bilevel.layers import FilterDenoise
from bilevel.tasks import runs

from . import figures
from .page import tile, tiles

ZOOM, COLUMNS = 6, 12


def section(run: Path) -> str:
    """Empty where the model of the run has no filters."""
    model, _ = runs.load(run)
    if not isinstance(model, FilterDenoise):
        return ""
    shown = {
        "learned, the strongest first": model.strongest_first(),
        "the DCT basis, where learning began": model.basis,
    }
    return tiles(tile(figures.picture(atlas(f)), text, text) for text, f in shown.items())


def atlas(filters: Tensor) -> np.ndarray:
    """(K, 1, h, w) -> one gray picture in [0, 1]: 0 is mid-gray, each filter fills the range."""
    cells = filters[:, 0].double().cpu()
    cells = cells / cells.abs().amax((1, 2), keepdim=True).clamp_min(1e-12) / 2 + 0.5
    enlarged = np.kron(cells.numpy(), np.ones((1, ZOOM, ZOOM)))
    framed = np.pad(enlarged, ((0, -len(cells) % COLUMNS), (1, 1), (1, 1)), constant_values=1.0)
    count, height, width = framed.shape
    grid = framed.reshape(count // COLUMNS, COLUMNS, height, width).swapaxes(1, 2)
    return grid.reshape(-1, COLUMNS * width)
