"""`bilevel demo`: learn from photographs inside scikit-image, judge on others, write the report.

Two models are learned: the weight as a function of the noise level, from noise 5 to 50, and one
weight for noise 25. A grid search on the same crops, at every noise level of the table, tells how
good any weight can be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bilevel.reports import restoration
from bilevel.tasks import data, evaluation, grid, runs, sweep
from bilevel.tasks.images import Image

JOB = runs.Job(images="skimage", noise="5:50", crops=32)
LEVELS = (15.0, 25.0, 50.0)
ONE_WEIGHT = "one weight"  # the folder, inside the run folder, of the second run
SIZE = 256  # side of the part of each test photograph that is looked at


def jobs(run: Path) -> dict[Path, runs.Job]:
    return {run: JOB, run / ONE_WEIGHT: replace(JOB, noise="25")}


def judge(run: Path, tick: Callable[[], object] = lambda: None) -> list[evaluation.Row]:
    """Grid search, evaluation and report; ticks `TICKS` times."""
    grids = grid.grids_of(JOB, LEVELS, tick)
    models = {
        f"{evaluation.LEARNED[JOB.model]} for every noise": runs.load(run)[0],
        f"{evaluation.LEARNED[JOB.model]} at noise 25": runs.load(run / ONE_WEIGHT)[0],
    }
    pictures = [middle(picture, SIZE) for picture in data.photographs("skimage", "test")]
    result = evaluation.evaluate(models, pictures, LEVELS, JOB.task, grids=grids, tick=tick)
    evaluation.save(result, run, force=True)
    middle_level = LEVELS[len(LEVELS) // 2]
    sweep.save(sweep.sweep(JOB.task, runs.load(run)[0], pictures[0], middle_level, tick), run)
    restoration.write(run)
    return result.rows


TICKS = len(LEVELS) * (grid.GRID_SOLVES + len(data.SKIMAGE["test"])) + len(sweep.FACTORS)


def middle(picture: Image, size: int) -> Image:
    top, left = ((n - size) // 2 for n in picture.pixels.shape[:2])
    return replace(picture, pixels=picture.pixels[top : top + size, left : left + size])


def free_folder(base: Path = Path("runs")) -> Path:
    """runs/demo, or the first of runs/demo-2, runs/demo-3, ... that is not there yet."""
    number, path = 1, base / "demo"
    while path.exists():
        number, path = number + 1, base / f"demo-{number + 1}"
    return path
