"""`bilevel denoise`, `deblur`, `inpaint`: files in, files out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from bilevel import learning
from bilevel.tasks import check_task, data, images, runs, sweep
from bilevel.tasks.denoise import noise_of
from bilevel.tasks.images import Image, ImageError
from bilevel.tasks.restorer import ByWeight, Restored, Restorer
from bilevel.tasks.task import Task, weight_at


@dataclass(frozen=True)
class Restoration(Restorer):
    """A task, a model and, where that asks for one, the noise level: given, or estimated."""

    task: Task
    model: nn.Module
    noise: float | None  # of 255
    learned: data.Noise | None = None

    @classmethod
    def of(
        cls, task: Task, run: Path | None, weight: float | None, noise: float | None
    ) -> Restoration:
        if run is not None and weight is not None:
            raise ValueError("Give one of --model RUN and --weight NUMBER, not both.")
        check_noise(noise)
        if weight is not None:
            check_weight(weight)
            if noise is not None:
                warnings.warn("With a --weight the --noise plays no part.", stacklevel=2)
            return cls(task, task.model(False, weight), None)
        if run is None:  # the usual weight of the image's noise
            return cls(task, task.model(True), noise)
        check_task(run, learning.read_config(run), task.name)
        model, _ = runs.load(run)
        job = runs.Job.of_run(run)
        if noise is not None and "sigma" not in model.asks:  # type: ignore[operator]
            warnings.warn(
                f"The model in {run} has one weight for every noise level: --noise plays no part.",
                stacklevel=2,
            )
        return cls(task, model, noise, data.Noise.parse(job.noise))

    def __call__(self, image: Image) -> tuple[np.ndarray, str]:
        level, how = self._noise(image)
        if how and self.learned and not self.learned.low / 1.2 <= level <= self.learned.high * 1.2:
            warnings.warn(
                f"{image.path}: its noise of {level:.1f} lies outside of what the model has "
                f"learned ({self.learned}).",
                stacklevel=2,
            )
        restored = self.task.apply(self.model, image.channels, level)
        return restored, f" (noise {level:.1f}, {how})" if how else ""

    def _noise(self, image: Image) -> tuple[float, str]:
        """Its level of 255, and whether given or estimated; NaN where the model does not ask."""
        asks = "sigma" in self.model.asks  # type: ignore[operator]
        return noise_of(image, self.noise) if asks else (math.nan, "")

    def known(self) -> dict[str, np.ndarray]:
        return {f"the {name}": (v / v.max()).numpy() for name, v in self.task.told().items()}

    def by_weight(self, image: Image) -> ByWeight:
        weight = weight_at(self.model, self._noise(image)[0])
        given = sweep.middle(image.gray(), self.task.shown, self.task.margin)

        def restored(weight: float) -> np.ndarray:
            model = self.task.with_weight(self.model, weight)
            return self.task.apply(model, given[None], math.nan)[0]

        return sweep.by_weight(given, weight, restored)


def check_noise(noise: float | None) -> None:
    if noise is not None and not 0 < noise <= data.LOUDEST:
        raise ValueError(
            f"--noise is {noise:g}: give a standard deviation > 0, of 255, "
            f"{data.LOUDEST:g} at most."
        )


def check_weight(weight: float) -> None:
    if not 1e-9 <= weight <= 1e9:  # beyond, float32 has no number for it
        raise ValueError(f"--weight is {weight:g}: give a number > 0, such as 0.1.")
    if weight > 0.5:
        warnings.warn(
            f"--weight is {weight:g}, which leaves little of an image in [0, 1] and takes "
            "long; 0.05 to 0.2 is usual for denoising, less for other tasks.",
            stacklevel=2,
        )


def plan(
    inputs: Sequence[Path], output: Path | None, force: bool, done: str
) -> list[tuple[Path, Path]]:
    """(source, target) for every image, checked before the long work begins."""
    sources: list[Path] = []
    for path in inputs:
        sources += images.scan(path) if path.is_dir() else [path]
    many = len(sources) > 1 or any(path.is_dir() for path in inputs)
    if output is None:
        targets = [p.with_name(f"{p.stem}_{done}{p.suffix}") for p in sources]
    elif many or output.is_dir():
        if output.exists() and not output.is_dir():
            raise ImageError(f"The output {output} is a file; {len(sources)} images need a folder.")
        _make(output)
        targets = [output / path.name for path in sources]
    else:
        targets = [output]
    for target in targets:
        if targets.count(target) > 1:
            raise ImageError(f"Two images would both be written to {target}. Do one at a time.")
    for source, target in zip(sources, targets, strict=True):
        images.check_writable(target, force)
        check_no_input(target, source)
    return list(zip(sources, targets, strict=True))


def check_no_input(output: Path, *inputs: Path) -> None:
    """Not even by force does a result take the place of what it was made from."""
    if output.exists() and any(path.exists() and output.samefile(path) for path in inputs):
        raise ImageError(f"The output {output} is the input. Choose another name.")


def pages(targets: Sequence[Path], force: bool) -> list[Path]:
    """The page beside each result, checked before the long work begins."""
    found = [target.with_suffix(".html") for target in targets]
    for path in found:
        if found.count(path) > 1:
            raise ImageError(f"Two reports would both be {path}. Leave them out: --no-report.")
        images.check_free(path, force)
    return found


def restore(source: Path, restorer: Restorer, alone: bool) -> Restored | None:
    """Reads and restores; None, after a warning, for one bad file of several."""
    try:
        return Restored.of(images.read(source), restorer)
    except ImageError as error:
        if alone:
            raise
        warnings.warn(f"Skipped: {error}", stacklevel=2)
        return None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"The folder {folder} cannot be made: {error.strerror}.") from None
