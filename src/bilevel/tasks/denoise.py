"""The job behind `bilevel learn denoise`: from crops of photographs to a model in a run folder."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bilevel import learning
from bilevel.differentiation import BiCGStab, FixedPoint
from bilevel.layers import TVDenoise, TVDenoiser
from bilevel.learning.learn import LearnResult
from bilevel.learning.learn import learn as learn_parameters
from bilevel.tasks.data import Noise, Sample, crops, digest, photographs
from bilevel.tasks.images import Image

TOL = 1e-4  # relative duality gap: PSNR right to 0.001 dB
DIFF = FixedPoint(
    BiCGStab(tol=1e-2), order=1
)  # two digits of the gradient find the weight to 0.1 %


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
    kind = TVDenoiser if per_noise else TVDenoise
    return kind(tol=TOL, diff=DIFF, on_fail="warn").double()


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


def describe(model: nn.Module) -> str:
    """The learned parameters, in words."""
    if isinstance(model, TVDenoiser):
        offset, slope = (p.item() for p in (model.offset, model.slope))
        factor = math.exp(offset)
        return f"weight = {factor:.4g} sigma^{slope:.4g}, sigma the noise level in [0, 1]"
    return f"weight = {weight_at(model, 1.0):.5g}"


@torch.no_grad()
def weight_at(model: nn.Module, level: float) -> float:
    """The weight that the model takes at a noise level of 255."""
    if isinstance(model, TVDenoiser):
        return model.weight(model.offset.new_full((1,), level / 255)).item()
    assert isinstance(model, TVDenoise)
    return model.weight.item()


@torch.no_grad()
def apply(model: nn.Module, channels: np.ndarray, level: float) -> np.ndarray:
    """(C, H, W) -> the same: each channel denoised alone, at a noise level in units of 255."""
    batch = torch.from_numpy(np.ascontiguousarray(channels))[:, None]
    return restore(model, batch, batch.new_full((len(batch),), level / 255))[:, 0].numpy()


def estimate_noise(image: Image) -> float:
    """The noise level of 255, from the finest wavelets (Donoho, Johnstone 1994); 0 if none."""
    from skimage.restoration import estimate_sigma

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an image without any detail
        sigma = np.mean([estimate_sigma(channel) for channel in image.channels])
    return 255 * float(np.nan_to_num(sigma))


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

    def __post_init__(self) -> None:
        Noise.parse(self.noise)
        if self.model != "tv":
            raise ValueError(f"The model is {self.model!r}, which is not known. Use 'tv'.")
        if self.crop < 8 or self.crops < 1:
            raise ValueError(
                f"--crops {self.crops}, --crop {self.crop}: there must be at least 1 crop, of at "
                "least 8 x 8 pixels."
            )

    def config(self, samples: Sequence[Sample]) -> dict[str, Any]:
        return {
            "task": "denoise",
            "bilevel": metadata.version("bilevel"),
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

    @property
    def ends(self) -> tuple[float, float]:
        noise = Noise.parse(self.noise)
        return noise.low, noise.high

    @property
    def levels(self) -> tuple[float, ...]:
        """The noise levels at which to look at what was learned."""
        return Noise.parse(self.noise).levels

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
) -> LearnResult:
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
    return learn_parameters(
        build(config["model"]),
        samples,
        noise_left,
        optimizer=_optimizer,
        steps=steps,
        seed=job.seed,
        out=out,
        resume=resume,
        config=config,
        progress=progress,
    )


def _optimizer(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(
        parameters,
        max_iter=1,  # so that a step is one iteration: shown, saved, counted
        max_eval=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=5e-4,  # parameters are logarithms: the weight is then right to 0.1 %
        tolerance_change=1e-9,
    )
