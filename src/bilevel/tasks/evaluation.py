"""How good a model is: PSNR and SSIM beside classical methods, as a table and as pictures.

An evaluation leaves in the run folder

    evaluation/table.csv       one row for an image, a noise level and a method
    evaluation/grid.csv        the loss over the weights of the grid search
    evaluation/pictures/       IMAGE_METHOD.png at the middle noise level
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bilevel import learning
from bilevel.tasks import images
from bilevel.tasks.data import noisy
from bilevel.tasks.grid import Grid
from bilevel.tasks.images import Image
from bilevel.tasks.tables import read_csv, replacing, write_csv
from bilevel.tasks.task import Method, Task

CLEAN, NOISY, GRID = "clean", "noisy", "TV, grid search"
LEARNED = {"tv": "TV, learned", "filters": "filters, learned"}  # by the name of the model
SHOWN = 4  # so many images are kept as pictures


@dataclass(frozen=True)
class Row:
    image: str
    noise: float
    method: str
    psnr: float
    ssim: float


# ------------------------------------------------------------------------------------ evaluate


@dataclass(frozen=True)
class Evaluation:
    rows: list[Row]
    grids: list[Grid]
    pictures: dict[tuple[str, str], Image]  # (image, method) at the middle noise level


def evaluate(
    models: Mapping[str, nn.Module],
    pictures: Sequence[Image],
    levels: Sequence[float],
    task: Task,
    *,
    grids: Sequence[Grid] = (),
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Every method on every image and level, all on the same noise; `tick` after each level."""
    middle = levels[len(levels) // 2]
    rows, shown = [], {}
    for number, (name, picture) in enumerate(zip(names(pictures), pictures, strict=True)):
        here = task.at(number)
        clean, exact = here.target(picture.channels), here.see(picture.channels)
        for level in levels:
            seen = noisy(exact, level, np.random.default_rng([seed, number]))
            for method, restored in methods(models, level, here, grids).items():
                result = restored(seen, level)
                rows.append(Row(name, level, method, *quality(result, clean)))
                if level == middle and number < SHOWN:
                    shown[name, method] = picture.with_channels(result)
                    shown[name, CLEAN] = picture.with_channels(clean)
            tick()
    return Evaluation(rows, list(grids), shown)


def names(pictures: Sequence[Image]) -> list[str]:
    """What a table calls the images: short, and no two alike."""
    paths = [picture.path or Path(f"image {i}") for i, picture in enumerate(pictures)]
    stems = [path.stem for path in paths]
    return [p.stem if stems.count(p.stem) == 1 else p.name for p in paths]


def methods(
    models: Mapping[str, nn.Module], level: float, task: Task, grids: Sequence[Grid] = ()
) -> dict[str, Method]:
    """What a table compares, in its order."""
    chosen: dict[str, Method] = {NOISY: lambda seen, level: seen}
    for grid in grids:
        if grid.noise == level:
            chosen[GRID] = partial(task.apply, task.model(False, grid.best))
    learned = {name: partial(task.apply, model) for name, model in models.items()}
    return {**chosen, **learned, **task.classical()}


def quality(result: np.ndarray, clean: np.ndarray) -> tuple[float, float]:
    """PSNR in dB and SSIM, of values as computed: not clipped, not rounded."""
    a, b = (torch.from_numpy(np.ascontiguousarray(x))[None] for x in (result, clean))
    return float(learning.psnr(a, b)), float(learning.ssim(a, b))


def means(rows: Sequence[Row]) -> dict[str, dict[float, tuple[float, float]]]:
    """Method -> noise level -> mean PSNR and SSIM over the images."""
    table: dict[str, dict[float, tuple[float, float]]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        for level in dict.fromkeys(row.noise for row in rows):
            group = [r for r in rows if r.method == method and r.noise == level]
            if group:
                table.setdefault(method, {})[level] = (
                    math.fsum(r.psnr for r in group) / len(group),
                    math.fsum(r.ssim for r in group) / len(group),
                )
    return table


# --------------------------------------------------------------------------------------- files


def save(evaluation: Evaluation, run: Path, force: bool = False) -> None:
    """Into RUN/evaluation: complete or not at all."""
    check_free(run, force)
    with replacing(run / "evaluation") as folder:
        (folder / "pictures").mkdir()
        write_csv(folder / "table.csv", [asdict(row) for row in evaluation.rows])
        points = [
            {"noise": grid.noise, "weight": weight, "loss": loss}
            for grid in evaluation.grids
            for weight, loss in zip(grid.weights, grid.losses, strict=True)
        ]
        write_csv(folder / "grid.csv", points or [{"noise": "", "weight": "", "loss": ""}])
        for (name, method), picture in evaluation.pictures.items():
            kind = images.Kind(np.dtype(np.uint8))
            images.write(picture_path(folder, name, method), replace(picture, kind=kind))


def picture_path(evaluation: Path, image: str, method: str) -> Path:
    return evaluation / "pictures" / f"{image}_{method.replace(',', '').replace(' ', '-')}.png"


def check_free(run: Path, force: bool = False) -> None:
    if (run / "evaluation").exists() and not force:
        raise FileExistsError(f"{run} holds an evaluation. To replace it, pass --force.")


def read_rows(run: Path) -> list[Row]:
    """evaluation/table.csv; empty if there is none."""
    types: dict[str, Any] = {"image": str, "method": str}
    return [
        Row(**{f.name: types.get(f.name, float)(line[f.name]) for f in fields(Row)})
        for line in read_csv(run / "evaluation" / "table.csv", [f.name for f in fields(Row)])
    ]


def read_grids(run: Path) -> list[Grid]:
    points = read_csv(run / "evaluation" / "grid.csv", ["noise", "weight", "loss"])
    grids: dict[float, Grid] = {}
    for point in points:
        if point["noise"]:
            level = float(point["noise"])
            grid = grids.setdefault(level, Grid(level, [], []))
            grid.weights.append(float(point["weight"]))
            grid.losses.append(float(point["loss"]))
    return list(grids.values())
