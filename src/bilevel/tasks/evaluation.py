"""How good a denoiser is: PSNR and SSIM beside classical methods, as a table and as pictures.

An evaluation leaves in the run folder

    evaluation/table.csv       one row for an image, a noise level and a method
    evaluation/grid.csv        the loss over the weights of the grid search
    evaluation/pictures/       IMAGE_METHOD.png at the middle noise level
"""

from __future__ import annotations

import csv
import io
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bilevel import learning
from bilevel.layers import TVDenoise
from bilevel.learning.checkpoint import write_bytes
from bilevel.tasks import images
from bilevel.tasks.data import Noise, Sample, noisy
from bilevel.tasks.denoise import TOL, Job, apply, noise_left
from bilevel.tasks.images import Image, ImageError
from bilevel.warm_start import WarmStarts, warm_starts

Method = Callable[[np.ndarray, float], np.ndarray]  # (C, H, W), noise level of 255 -> the same

CLEAN, NOISY, GRID, LEARNED = "clean", "noisy", "TV, grid search", "TV, learned"
NON_LOCAL, WAVELETS = "non-local means", "wavelets"
SHOWN = 4  # so many images are kept as pictures


@dataclass(frozen=True)
class Row:
    image: str
    noise: float
    method: str
    psnr: float
    ssim: float


# --------------------------------------------------------------------------- classical methods


def non_local_means(channels: np.ndarray, level: float) -> np.ndarray:
    """Buades, Coll, Morel (2005), told the noise level; colours decide together what is alike."""
    from skimage.restoration import denoise_nl_means

    sigma, gray = level / 255, len(channels) == 1
    result = denoise_nl_means(
        channels[0] if gray else channels,
        patch_size=5,
        patch_distance=6,
        h=0.8 * sigma,  # as scikit-image advises for its fast mode
        sigma=sigma,
        fast_mode=True,
        channel_axis=None if gray else 0,
    )
    return result.reshape(channels.shape)


def wavelets(channels: np.ndarray, level: float) -> np.ndarray:
    """BayesShrink (Chang, Yu, Vetterli 2000), averaged over 16 shifts (Coifman, Donoho 1995)."""
    from skimage.restoration import denoise_wavelet

    def shifted(channel: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
        moved = np.roll(channel, shift, (0, 1))
        clean = denoise_wavelet(
            moved, sigma=level / 255, method="BayesShrink", mode="soft", rescale_sigma=False
        )
        return np.roll(clean, (-shift[0], -shift[1]), (0, 1))

    shifts = [(i, j) for i in range(4) for j in range(4)]
    return np.stack([np.mean([shifted(c, s) for s in shifts], axis=0) for c in channels])


# --------------------------------------------------------------------------------- grid search


@dataclass(frozen=True)
class Grid:
    """The loss over a grid of weights, at one noise level."""

    noise: float
    weights: list[float]
    losses: list[float]

    @property
    def best(self) -> float:
        return self.weights[int(np.argmin(self.losses))]


def grid_search(
    samples: Sequence[Sample], level: float, tick: Callable[[], object] = lambda: None
) -> Grid:
    """The best weight of TV for all samples together: a coarse grid, then a fine one.

    The coarse grid goes from 0.15 to 2.6 times the noise level. The fine one has a ratio of 1.04
    between neighbours, so the best is missed by 2 % at most; near the minimum that costs less than
    0.001 dB. Each solve starts from its neighbour's solution.
    """
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    store, index = WarmStarts(), torch.arange(len(samples))
    losses: dict[float, float] = {}

    @torch.no_grad()
    def loss(weight: float) -> float:
        if weight not in losses:
            with warm_starts(store, index):
                model = TVDenoise(weight, tol=TOL).double()
                losses[weight] = float(noise_left(model, batch))
            tick()
        return losses[weight]

    ratio = 1.04**6
    coarse = [level / 255 * ratio**k for k in range(-8, 5)]
    start = min(coarse, key=loss)
    min((start * 1.04**k for k in range(-5, 6)), key=loss)
    weights = sorted(losses)
    return Grid(level, weights, [losses[weight] for weight in weights])


GRID_SOLVES = 23  # how often grid_search ticks


def grids_of(job: Job, levels: Sequence[float], tick: Callable[[], object]) -> list[Grid]:
    """On the crops that a run learned from; none, after a warning, where they are gone."""
    try:
        samples = [job.samples(Noise(level, level)) for level in levels]
    except ImageError as error:
        warnings.warn(f"No grid search: the images of the run are gone. {error}", stacklevel=2)
        for _ in range(GRID_SOLVES * len(levels)):
            tick()
        return []
    return [grid_search(s, level, tick) for s, level in zip(samples, levels, strict=True)]


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
    *,
    grids: Sequence[Grid] = (),
    seed: int = 0,
    tick: Callable[[], object] = lambda: None,
) -> Evaluation:
    """Every method on every image and level, all on the same noise; `tick` after each level."""
    middle = levels[len(levels) // 2]
    rows, shown = [], {}
    for number, (name, picture) in enumerate(zip(names(pictures), pictures, strict=True)):
        for level in levels:
            seen = noisy(picture.channels, level, np.random.default_rng([seed, number]))
            for method, denoise in methods(models, level, grids).items():
                result = denoise(seen, level)
                rows.append(Row(name, level, method, *quality(result, picture.channels)))
                if level == middle and number < SHOWN:
                    shown[name, method] = picture.with_channels(result)
                    shown[name, CLEAN] = picture
            tick()
    return Evaluation(rows, list(grids), shown)


def names(pictures: Sequence[Image]) -> list[str]:
    """What a table calls the images: short, and no two alike."""
    paths = [picture.path or Path(f"image {i}") for i, picture in enumerate(pictures)]
    stems = [path.stem for path in paths]
    return [p.stem if stems.count(p.stem) == 1 else p.name for p in paths]


def methods(
    models: Mapping[str, nn.Module], level: float, grids: Sequence[Grid] = ()
) -> dict[str, Method]:
    """What a table compares, in its order."""
    chosen: dict[str, Method] = {NOISY: lambda seen, level: seen}
    for grid in grids:
        if grid.noise == level:
            chosen[GRID] = partial(apply, TVDenoise(grid.best, tol=TOL).double())
    learned = {name: partial(apply, model) for name, model in models.items()}
    return {**chosen, **learned, NON_LOCAL: non_local_means, WAVELETS: wavelets}


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
    final, temporary = run / "evaluation", run / ".evaluation.tmp"
    check_free(run, force)
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        (temporary / "pictures").mkdir(parents=True)
        _write_csv(temporary / "table.csv", [asdict(row) for row in evaluation.rows])
        points = [
            {"noise": grid.noise, "weight": weight, "loss": loss}
            for grid in evaluation.grids
            for weight, loss in zip(grid.weights, grid.losses, strict=True)
        ]
        _write_csv(temporary / "grid.csv", points or [{"noise": "", "weight": "", "loss": ""}])
        for (name, method), picture in evaluation.pictures.items():
            kind = images.Kind(np.dtype(np.uint8))
            images.write(picture_path(temporary, name, method), replace(picture, kind=kind))
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


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
        for line in _read_csv(run / "evaluation" / "table.csv", [f.name for f in fields(Row)])
    ]


def read_grids(run: Path) -> list[Grid]:
    points = _read_csv(run / "evaluation" / "grid.csv", ["noise", "weight", "loss"])
    grids: dict[float, Grid] = {}
    for point in points:
        if point["noise"]:
            level = float(point["noise"])
            grid = grids.setdefault(level, Grid(level, [], []))
            grid.weights.append(float(point["weight"]))
            grid.losses.append(float(point["loss"]))
    return list(grids.values())


def _write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_bytes(path, text.getvalue().encode())


def _read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    reader = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    if reader.fieldnames != list(columns):
        raise ValueError(f"{path} has the columns {reader.fieldnames}, not {list(columns)}.")
    return list(reader)
