"""The best weight by a grid search: what a learned weight is judged by."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bilevel.tasks.data import Noise, Sample
from bilevel.tasks.images import ImageError
from bilevel.tasks.runs import Job
from bilevel.tasks.task import Task, noise_left
from bilevel.warm_start import WarmStarts, warm_starts


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
    task: Task, samples: Sequence[Sample], level: float, tick: Callable[[], object] = lambda: None
) -> Grid:
    """The best weight of TV for all samples together: a coarse grid, then a fine one.

    The coarse grid goes from 0.15 to 2.6 times the task's usual weight at this noise level. The
    fine one has a ratio of 1.04 between neighbours, so the best is missed by 2 % at most; near the
    minimum that costs less than 0.001 dB. Each solve starts from its neighbour's solution.
    """
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    store, index = WarmStarts(), torch.arange(len(samples))
    losses: dict[float, float] = {}

    @torch.no_grad()
    def loss(weight: float) -> float:
        if weight not in losses:
            with warm_starts(store, index):
                losses[weight] = float(noise_left(task.model(False, weight), batch))
            tick()
        return losses[weight]

    ratio = 1.04**6
    coarse = [task.usual_weight(level) * ratio**k for k in range(-8, 5)]
    start = min(coarse, key=loss)
    min((start * 1.04**k for k in range(-5, 6)), key=loss)
    weights = sorted(losses)
    return Grid(level, weights, [losses[weight] for weight in weights])


GRID_SOLVES = 23  # how often grid_search ticks


def grids_of(job: Job, levels: Sequence[float], tick: Callable[[], object]) -> list[Grid]:
    """On the crops that a run learned from; none, after a warning, where they are gone, and none of
    images that are not clean: other levels cannot be had of them."""
    if not job.clean:
        return []
    try:
        samples = [job.samples(Noise(level, level)) for level in levels]
    except ImageError as error:
        warnings.warn(f"No grid search: the images of the run are gone. {error}", stacklevel=2)
        for _ in range(GRID_SOLVES * len(levels)):
            tick()
        return []
    return [grid_search(job.task, s, level, tick) for s, level in zip(samples, levels, strict=True)]
