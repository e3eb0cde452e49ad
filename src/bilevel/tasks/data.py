"""What a model learns from: crops of photographs, seen through the task, with known noise.

Noise levels are standard deviations in units of 255 where a person reads or writes them, and in the
images' own units ([0, 1]) in everything that computes.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bilevel.tasks import images
from bilevel.tasks.images import Image
from bilevel.tasks.task import Task

Sample = dict[str, Tensor]  # noisy (1, H, W), sigma (), what the task tells; clean where known

# Photographs that ship inside scikit-image, under the name "skimage"; no image is in both lists.
SKIMAGE = {
    "learn": (
        *("astronaut.png", "brick.png", "clock_motion.png", "coins.png", "grass.png"),
        *("moon.png", "motorcycle_left.png", "rocket.jpg"),
    ),
    "test": ("camera.png", "chelsea.png", "coffee.png"),
}


def photographs(source: str | Path, split: str = "learn") -> list[Image]:
    """The images of a folder, or of scikit-image where the source is "skimage"."""
    if str(source) != "skimage":
        return images.read_all(images.scan(source))
    import skimage.data

    folder = Path(skimage.data.__file__).parent
    return [images.read(folder / name) for name in SKIMAGE[split]]


LOUDEST = 2550.0  # ten times white


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one level, or of levels drawn log-uniformly from a range."""

    low: float  # standard deviations, in units of 255
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high <= LOUDEST):
            raise ValueError(
                f"The noise is {self.low:g}:{self.high:g}: give one standard deviation > 0 in "
                "units of 255, such as 25, or a range from low to high, such as 5:50; "
                f"{LOUDEST:g} at most."
            )

    @classmethod
    def parse(cls, text: str) -> Noise:
        """25 or 5:50."""
        parts = text.split(":")
        try:
            low, high = float(parts[0]), float(parts[-1])
        except ValueError:
            low = high = math.nan
        if len(parts) > 2 or math.isnan(low + high):
            raise ValueError(f"The noise is {text!r}: give a number such as 25 or a range 5:50.")
        return cls(low, high)

    @property
    def fixed(self) -> bool:
        return self.low == self.high

    @property
    def levels(self) -> tuple[float, ...]:
        """Where to look at a model that was learned with this noise."""
        middle = math.sqrt(self.low * self.high)
        return (self.low,) if self.fixed else (self.low, float(f"{middle:.3g}"), self.high)

    def draw(self, rng: np.random.Generator) -> float:
        draw = float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))
        return min(max(draw, self.low), self.high)  # exp(log(25)) is not quite 25

    def __str__(self) -> str:
        return f"{self.low:g}" if self.fixed else f"{self.low:g}:{self.high:g}"


def parse_levels(text: str) -> tuple[float, ...]:
    """15,25,50."""
    return tuple(dict.fromkeys(Noise.parse(part).levels[0] for part in text.split(",")))


def noisy(clean: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return clean + level / 255 * rng.standard_normal(clean.shape)


def crops(
    pictures: Sequence[Image],
    noise: Noise,
    task: Task,
    *,
    size: int = 64,
    count: int = 48,
    seed: int = 0,
    clean: bool = True,
) -> list[Sample]:
    """Gray crops from each picture in turn; sample i is the same whatever the count.

    What is seen is size x size; the crop is larger by the margin of the task. Pictures that are
    not clean have the noise already: nothing is added, and there is no clean crop to compare with.
    """
    height, width = (size + margin for margin in task.margin)
    large = _large([picture.gray() for picture in pictures], height, width)
    samples = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        picture, here = large[i % len(large)], task.at(i)
        top = int(rng.integers(0, picture.shape[0] - height, endpoint=True))
        left = int(rng.integers(0, picture.shape[1] - width, endpoint=True))
        crop = picture[None, top : top + height, left : left + width]
        level = noise.draw(rng)
        sample = {"sigma": torch.tensor(level / 255, dtype=torch.float64), **here.told()}
        if clean:
            sample["noisy"] = torch.from_numpy(noisy(here.see(crop), level, rng))
            sample["clean"] = torch.from_numpy(here.target(crop).copy())
        else:
            sample["noisy"] = torch.from_numpy(crop.copy())
        samples.append(sample)
    return samples


def _large(gray: list[np.ndarray], height: int, width: int) -> list[np.ndarray]:
    """Those that hold a crop."""
    large = [g for g in gray if g.shape[0] >= height and g.shape[1] >= width]
    needed = f"a crop of {height} x {width}"
    if not large:
        shapes = ", ".join(str(g.shape) for g in gray[:5])
        raise ValueError(
            f"All {len(gray)} images are smaller than {needed} (the first: {shapes}). Use a "
            "smaller --crop or larger images."
        )
    if len(large) < len(gray):
        warnings.warn(
            f"{len(gray) - len(large)} of {len(gray)} images are smaller than {needed} "
            "and are not used.",
            stacklevel=3,
        )
    return large


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of the samples: the same crops with the same noise, or not."""
    total = hashlib.sha256()
    for sample in samples:
        for key in sorted(sample):
            total.update(sample[key].numpy().tobytes())
    return total.hexdigest()
