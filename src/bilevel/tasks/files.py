"""`bilevel denoise`: files in, files out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from bilevel.layers import TVDenoise, TVDenoiser
from bilevel.tasks import data, images
from bilevel.tasks import denoise as task
from bilevel.tasks.images import ImageError


@dataclass(frozen=True)
class Denoiser:
    """A model and, where it asks for one, the noise level: given, or estimated from each image."""

    model: nn.Module
    noise: float | None  # of 255
    learned: data.Noise | None = None

    @classmethod
    def of(cls, run: Path | None, weight: float | None, noise: float | None) -> Denoiser:
        if noise is not None and not 0 < noise < math.inf:
            raise ValueError(f"--noise is {noise:g}: give a standard deviation > 0, of 255.")
        if run is None:
            assert weight is not None
            if not 0 < weight < math.inf:
                raise ValueError(f"--weight is {weight:g}: give a number > 0, such as 0.1.")
            if weight > 0.5:
                warnings.warn(
                    f"--weight is {weight:g}, which leaves little of an image in [0, 1] and takes "
                    "long; 0.05 to 0.2 is usual.",
                    stacklevel=2,
                )
            return cls(TVDenoise(weight, tol=task.TOL).double(), None)
        model, _ = task.load(run)
        if noise is not None and not isinstance(model, TVDenoiser):
            warnings.warn(
                f"The model in {run} has one weight for every noise level: --noise plays no part.",
                stacklevel=2,
            )
        return cls(model, noise, data.Noise.parse(task.Job.of_run(run).noise))

    def level(self, image: images.Image) -> float | None:
        """The noise level for this image; None where the model asks for none."""
        if not isinstance(self.model, TVDenoiser):
            return None
        return task.estimate_noise(image) if self.noise is None else self.noise


def plan(inputs: Sequence[Path], output: Path | None, force: bool) -> list[tuple[Path, Path]]:
    """(source, target) for every image, checked before the long work begins."""
    sources: list[Path] = []
    for path in inputs:
        sources += images.scan(path) if path.is_dir() else [path]
    many = len(sources) > 1 or any(path.is_dir() for path in inputs)
    if output is None:
        targets = [p.with_name(f"{p.stem}_denoised{p.suffix}") for p in sources]
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
        if target.exists() and target.samefile(source):
            raise ImageError(f"The output {target} is the input. Choose another name.")
    return list(zip(sources, targets, strict=True))


def denoise(source: Path, target: Path, denoiser: Denoiser, force: bool, alone: bool) -> str | None:
    """Reads, denoises, writes; what to tell. None, after a warning, for one bad file of several."""
    try:
        image = images.read(source)
    except ImageError as error:
        if alone:
            raise
        warnings.warn(f"Skipped: {error}", stacklevel=2)
        return None
    level = denoiser.level(image)
    if level is not None and level < 0.1:
        raise ImageError(f"{source}: no noise was found in it. Name its level with --noise.")
    told = ""
    if level is not None:
        how = "estimated" if denoiser.noise is None else "given"
        told = f" (noise {level:.1f}, {how})"
        learned = denoiser.learned
        if learned is not None and not learned.low / 1.2 <= level <= learned.high * 1.2:
            warnings.warn(
                f"{source}: its noise of {level:.1f} lies outside of what the model has learned "
                f"({learned}).",
                stacklevel=2,
            )
    result = image.with_channels(task.apply(denoiser.model, image.channels, level or math.nan))
    images.write(target, result, force)
    return f"{target}{told}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"The folder {folder} cannot be made: {error.strerror}.") from None
