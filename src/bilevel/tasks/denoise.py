"""The job behind `bilevel learn denoise`: crops of photographs with known noise, a model, a run.

Noise levels are standard deviations in units of 255 where a person reads or writes them, and in the
images' own units ([0, 1]) in everything that computes.
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import bilevel as bl
from bilevel import learning
from bilevel.layers import TVDenoise, TVDenoiser
from bilevel.tasks import images
from bilevel.tasks.images import Image

TOL = 1e-4  # relative duality gap
Sample = dict[str, Tensor]  # noisy and clean (1, H, W), sigma ()

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


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of one level, or of levels drawn log-uniformly from a range."""

    low: float  # standard deviations, in units of 255
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low <= self.high < math.inf):
            raise ValueError(
                f"The noise is {self.low:g}:{self.high:g}: give one standard deviation > 0 in "
                "units of 255, such as 25, or a range from low to high, such as 5:50."
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


def noisy(clean: np.ndarray, level: float, rng: np.random.Generator) -> np.ndarray:
    return clean + level / 255 * rng.standard_normal(clean.shape)


def crops(
    pictures: Sequence[Image], noise: Noise, *, size: int = 64, count: int = 48, seed: int = 0
) -> list[Sample]:
    """Gray crops from each picture in turn; sample i is the same whatever the count."""
    large = [picture.gray() for picture in pictures if min(picture.gray().shape) >= size]
    if not large:
        shapes = ", ".join(str(picture.gray().shape) for picture in pictures[:5])
        raise ValueError(
            f"All {len(pictures)} images are smaller than a crop of {size} x {size} "
            f"(the first: {shapes}). Use a smaller --crop or larger images."
        )
    if len(large) < len(pictures):
        warnings.warn(
            f"{len(pictures) - len(large)} of {len(pictures)} images are smaller than a crop of "
            f"{size} x {size} and are not used.",
            stacklevel=2,
        )
    samples = []
    for i in range(count):
        rng = np.random.default_rng([seed, i])
        picture = large[i % len(large)]
        top, left = (int(rng.integers(0, n - size, endpoint=True)) for n in picture.shape)
        clean = picture[None, top : top + size, left : left + size]
        level = noise.draw(rng)
        samples.append(
            {
                "noisy": torch.from_numpy(noisy(clean, level, rng)),
                "clean": torch.from_numpy(clean.copy()),
                "sigma": torch.tensor(level / 255, dtype=torch.float64),
            }
        )
    return samples


def restore(model: nn.Module, noisy: Tensor, sigma: Tensor) -> Tensor:  # (B, 1, H, W), (B,)
    return model(noisy, sigma) if isinstance(model, TVDenoiser) else model(noisy)


def noise_left(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error over the noise's variance, averaged: every noise level counts the same."""
    result = restore(model, batch["noisy"], batch["sigma"])
    error = (result - batch["clean"]).square().flatten(1).mean(1)
    return (error / batch["sigma"].square()).mean()


# -------------------------------------------------------------------------------------- models


def build(config: Mapping[str, Any]) -> nn.Module:
    """The model that a config's [model] table names, with its starting parameters."""
    table = dict(config)
    name, per_noise = table.pop("name", None), table.pop("noise_dependent", None)
    if name != "tv" or not isinstance(per_noise, bool) or table:
        raise ValueError(
            f"The model is {dict(config)}, which this version of bilevel does not know. "
            'It knows name = "tv" with noise_dependent = true or false.'
        )
    return (TVDenoiser(tol=TOL) if per_noise else TVDenoise(tol=TOL)).double()


def load(run: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Model and config of a run folder. Reads TOML and safetensors only: no code of it is run."""
    config, state = learning.read_config(run), learning.read_model(run)
    if config.get("task") != "denoise":
        raise ValueError(
            f"{run} is a run of the task {config.get('task')!r}, not of 'denoise': check the path."
        )
    try:
        model = build(config.get("model", {}))
    except ValueError as error:
        raise ValueError(f"{Path(run) / 'config.toml'}: {error}") from None
    expected = {k: (tuple(v.shape), v.dtype) for k, v in model.state_dict().items()}
    received = {k: (tuple(v.shape), v.dtype) for k, v in state.items()}
    if received != expected:
        raise ValueError(
            f"{Path(run) / 'model.safetensors'} does not fit the model in config.toml: it holds "
            f"{received}, needed is {expected}. Check that both files come from the same run."
        )
    if not all(v.isfinite().all() for v in state.values()):
        raise ValueError(f"{run} holds parameters that are not finite. Learn it again.")
    model.load_state_dict(state)
    return model.eval(), config


@torch.no_grad()
def apply(model: nn.Module, channels: np.ndarray, level: float) -> np.ndarray:
    """(C, H, W) -> the same: each channel denoised alone, at a noise level in units of 255."""
    batch = torch.from_numpy(np.ascontiguousarray(channels))[:, None]
    return restore(model, batch, batch.new_full((len(batch),), level / 255))[:, 0].numpy()


def estimate_noise(image: Image) -> float:
    """The noise level in units of 255, from the finest wavelets (Donoho, Johnstone 1994)."""
    from skimage.restoration import estimate_sigma

    return 255 * float(np.mean([estimate_sigma(channel) for channel in image.channels]))


# --------------------------------------------------------------------------------------- learn


@dataclass(frozen=True)
class Job:
    """What a run learned from: with the model, all that is needed to do it again."""

    images: str  # a folder, or "skimage"
    noise: str = "25"
    model: str = "tv"
    crop: int = 64
    crops: int = 48
    seed: int = 0

    def config(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "task": "denoise",
            "bilevel": bl.__version__,
            "model": {"name": self.model, "noise_dependent": not Noise.parse(self.noise).fixed},
            "data": {
                "images": self.images,
                "noise": self.noise,
                "crop": self.crop,
                "crops": self.crops,
                "seed": self.seed,
                "sha256": digest(samples),
            },
        }

    @classmethod
    def of_run(cls, run: str | Path) -> Job:
        """The job of a run folder, as its config tells it."""
        config = learning.read_config(run)
        data, kinds = config.get("data", {}), {"images": str, "noise": str}
        values = {k: data.get(k) for k in ("images", "noise", "crop", "crops", "seed")}
        wrong = [k for k, v in values.items() if type(v) is not kinds.get(k, int)]
        if config.get("task") != "denoise" or wrong:
            raise ValueError(
                f"{Path(run) / 'config.toml'} is not of a denoising run: {wrong or 'task'} is "
                "missing or of the wrong kind. Check the path, or learn again."
            )
        return cls(**values, model=config.get("model", {}).get("name", ""))

    def samples(self, noise: Noise | None = None) -> list[Sample]:
        return crops(
            photographs(self.images),
            noise or Noise.parse(self.noise),
            size=self.crop,
            count=self.crops,
            seed=self.seed,
        )


def learn(
    job: Job, out: str | Path, *, steps: int = 30, resume: bool = False, progress: bool = True
) -> learning.LearnResult:
    """Learns by L-BFGS on all crops at once and leaves the run folder `out`."""
    samples = job.samples()
    config = job.config(samples)
    if resume and (Path(out) / "config.toml").exists():
        before = learning.read_config(out).get("data", {}).get("sha256")
        if before != config["data"]["sha256"]:
            raise ValueError(
                f"The crops from {job.images} are not those that the run in {out} began with: "
                "images or options have changed. Restore them, or begin a new run elsewhere."
            )
    return learning.learn(
        build(config["model"]),
        samples,
        noise_left,
        steps=steps,
        seed=job.seed,
        out=out,
        resume=resume,
        config=config,
        progress=progress,
    )


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of the samples: the same crops with the same noise, or not."""
    total = hashlib.sha256()
    for sample in samples:
        for key in sorted(sample):
            total.update(sample[key].numpy().tobytes())
    return total.hexdigest()
