"""One picture restored with many weights, for the slider of the report.

A sweep leaves in the run folder

    weights/table.csv     a row for a weight, as a factor of the learned one, with PSNR and SSIM
    weights/NUMBER.png    the picture of that row, from 0; seen.png and clean.png beside them
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bilevel.tasks import images
from bilevel.tasks.data import noisy
from bilevel.tasks.evaluation import quality
from bilevel.tasks.images import Image
from bilevel.tasks.restorer import ByWeight
from bilevel.tasks.tables import read_csv, replacing, write_csv
from bilevel.tasks.task import Task, weight_at
from bilevel.warm_start import WarmStarts, warm_starts

FACTORS = tuple(2 ** (k / 2) for k in range(-5, 6))  # of the learned weight
FEW = FACTORS[1::2]  # where an image is waiting, not a model
SEEN, CLEAN = "seen", "clean"


@dataclass(frozen=True)
class Frame:
    factor: float  # 1 for the learned weight
    weight: float
    noise: float  # of 255
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Sweep:
    frames: list[Frame]
    pictures: dict[str, np.ndarray]  # "0", "1", ... , "seen", "clean" -> (H, W)


@torch.no_grad()
def sweep(
    task: Task,
    model: nn.Module,
    picture: Image,
    level: float,
    tick: Callable[[], object] = lambda: None,
) -> Sweep:
    """The middle of the picture, in gray; ticks for each of FACTORS."""
    here, learned = task.at(0), weight_at(model, level)
    part = middle(picture.gray(), task.shown, task.margin)[None]
    seen = noisy(here.see(part), level, np.random.default_rng(0))
    clean = here.target(part)
    frames, pictures = [], {SEEN: seen[0], CLEAN: clean[0]}

    def restored(weight: float) -> np.ndarray:
        return here.apply(task.with_weight(model, weight), seen, level)

    for number, (factor, result) in enumerate(around(learned, FACTORS, restored)):
        frames.append(Frame(factor, factor * learned, level, *quality(result, clean)))
        pictures[str(number)] = result[0]
        tick()
    return Sweep(frames, pictures)


def middle(pixels: np.ndarray, shown: int, margin: tuple[int, int] = (0, 0)) -> np.ndarray:
    """(H, W) -> as much of it as a slider shows, and a margin."""
    sides = [min(n, shown + m) for n, m in zip(pixels.shape, margin, strict=True)]
    top, left = ((n - side) // 2 for n, side in zip(pixels.shape, sides, strict=True))
    return pixels[top : top + sides[0], left : left + sides[1]]


def around(
    weight: float, factors: Sequence[float], restored: Callable[[float], np.ndarray]
) -> Iterator[tuple[float, np.ndarray]]:
    """(factor, what is restored with factor * weight); each begins where its neighbour ended."""
    store, index = WarmStarts(), torch.zeros(1, dtype=torch.long)
    for factor in factors:
        with warm_starts(store, index):
            result = restored(factor * weight)
        yield factor, result


def by_weight(
    given: np.ndarray, weight: float, restored: Callable[[float], np.ndarray]
) -> ByWeight:
    """What is restored with this weight, and with FEW others around it."""
    found = around(weight, FEW, restored)
    return ByWeight(given, {factor * weight: picture for factor, picture in found})


def worth_showing(task: Task, pictures: Sequence[Image]) -> Image:
    """The first that fills the picture, or else comes nearest to it."""
    return max(pictures, key=lambda picture: min(task.shown, *picture.pixels.shape[:2]))


def save(result: Sweep, run: Path) -> None:
    """Into RUN/weights, in place of what was there: complete or not at all."""
    with replacing(run / "weights") as folder:
        write_csv(folder / "table.csv", [asdict(frame) for frame in result.frames])
        for name, pixels in result.pictures.items():
            images.write(folder / f"{name}.png", Image(pixels, images.Kind(np.dtype(np.uint8))))


def read(run: Path) -> Sweep | None:
    columns = [field.name for field in fields(Frame)]
    rows: list[dict[str, Any]] = read_csv(run / "weights" / "table.csv", columns)
    if not rows:
        return None
    frames = [Frame(**{name: float(value) for name, value in row.items()}) for row in rows]
    names = [*map(str, range(len(frames))), SEEN, CLEAN]
    return Sweep(frames, {n: images.read(run / "weights" / f"{n}.png").pixels for n in names})
