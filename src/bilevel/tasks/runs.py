"""The job behind `bilevel learn`: from crops of photographs to a model in a run folder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bilevel import learning
from bilevel.layers import FilterDenoise
from bilevel.learning.learn import LearnResult
from bilevel.learning.learn import learn as learn_parameters
from bilevel.tasks import check_task
from bilevel.tasks.data import Noise, Sample, crops, digest, photographs
from bilevel.tasks.deblur import Deblur
from bilevel.tasks.denoise import Denoise
from bilevel.tasks.task import Task, noise_left, weight_at


def task_of(config: Mapping[str, Any]) -> Task:
    """The task that a config.toml names."""
    name, kernels = config.get("task"), config.get("data", {}).get("kernel")
    if name == Denoise.name:
        return Denoise()
    if name == Deblur.name and isinstance(kernels, list) and all(type(k) is str for k in kernels):
        return Deblur(tuple(kernels))
    raise ValueError(
        f"The task is {name!r} with the kernels {kernels!r}, which this version of bilevel does "
        f"not know. It knows {Denoise.name!r}, and {Deblur.name!r} with a list of kernels."
    )


# -------------------------------------------------------------------------------------- models


def build(task: Task, config: Mapping[str, Any]) -> nn.Module:
    """The model that a config's [model] table names, with its starting parameters."""
    table = dict(config)
    name, per_noise = table.pop("name", None), table.pop("noise_dependent", None)
    if name == "tv" and isinstance(per_noise, bool) and not table:
        return task.model(per_noise)
    if name == "filters" and per_noise is False and not table:
        return task.filters()
    raise ValueError(
        f"The model is {dict(config)}, which this version of bilevel does not know. It knows "
        'name = "tv" with noise_dependent = true or false, and name = "filters" with '
        "noise_dependent = false."
    )


def load(run: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Model and config of a run folder. Reads TOML and safetensors only: no code of it is run."""
    config, state = learning.read_config(run), learning.read_model(run)
    check_task(run, config, Denoise.name, Deblur.name)
    try:
        model = build(task_of(config), config.get("model", {}))
    except ValueError as error:
        raise ValueError(f"{Path(run) / 'config.toml'}: {error}") from None
    learning.fill(model, state, run)
    return model.eval(), config


def describe(model: Any) -> str:
    """The learned parameters, in words."""
    if "sigma" in model.asks:
        factor = math.exp(model.offset.item())
        slope = model.slope.item()
        return f"weight = {factor:.4g} sigma^{slope:.4g}, sigma the noise level in [0, 1]"
    filters = f", {len(model.mix)} filters" if isinstance(model, FilterDenoise) else ""
    return f"weight = {weight_at(model, 1.0):.5g}{filters}"


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
    clean: bool = True  # else the images have the noise, and are all there is
    task: Task = field(default_factory=Denoise)

    def __post_init__(self) -> None:
        noise = Noise.parse(self.noise)
        if not self.clean and not (noise.fixed and isinstance(self.task, Denoise)):
            raise ValueError(
                f"--no-clean learns a denoiser from images that have one level of noise, got the "
                f"task {self.task.name!r} and --noise {self.noise}. Name the level that they have."
            )
        if self.model not in ("tv", "filters"):
            raise ValueError(
                f"The model is {self.model!r}, which is not known. Use 'tv' or 'filters'."
            )
        if self.model == "filters" and not noise.fixed:
            raise ValueError(
                f"--noise is {self.noise}: the model 'filters' is for one noise level, such as 25."
            )
        if self.crop < 8 or self.crops < 1:
            raise ValueError(
                f"--crops {self.crops}, --crop {self.crop}: there must be at least 1 crop, of at "
                "least 8 x 8 pixels."
            )

    @classmethod
    def of(cls, task: str, options: Mapping[str, Any]) -> Job:
        """From the options of `bilevel learn TASK`."""
        own = {f.name for f in fields(cls)} - {"task"}
        chosen = {name: value for name, value in options.items() if name in own}
        return cls(**chosen, task=task_of({"task": task, "data": options}))

    @property
    def options(self) -> dict[str, Any]:
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "task"}
        return own | self.task.config()

    def config(self, samples: Sequence[Sample]) -> dict[str, Any]:
        data = self.options
        return {
            "task": self.task.name,
            "bilevel": metadata.version("bilevel"),
            "model": {
                "name": data.pop("model"),
                "noise_dependent": not Noise.parse(self.noise).fixed,
            },
            "data": {**data, "sha256": digest(samples)},
        }

    @classmethod
    def of_run(cls, run: str | Path) -> Job:
        """The job of a run folder, as its config tells it."""
        config = learning.read_config(run)
        data, kinds = config.get("data", {}), {"images": str, "noise": str}
        values = {k: data.get(k) for k in ("images", "noise", "crop", "crops", "seed")}
        wrong = [k for k, v in values.items() if type(v) is not kinds.get(k, int)]
        if wrong:
            raise ValueError(
                f"{Path(run) / 'config.toml'} is not of a run of `bilevel learn`: {wrong} is "
                "missing or of the wrong kind. Check the path, or learn again."
            )
        clean = data.get("clean", True)
        try:
            task = task_of(config)
        except ValueError as error:
            raise ValueError(f"{Path(run) / 'config.toml'}: {error}") from None
        model = config.get("model", {}).get("name", "")
        return cls(**values, clean=clean is not False, model=model, task=task)

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
            self.task,
            size=self.crop,
            count=self.crops,
            seed=self.seed,
            clean=self.clean,
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
        build(job.task, config["model"]),
        samples,
        noise_left,
        optimizer=partial(_optimizer, tolerance=1e-6 if job.model == "filters" else 5e-4),
        steps=steps,
        seed=job.seed,
        out=out,
        resume=resume,
        config=config,
        progress=progress,
    )


def _optimizer(parameters: list[nn.Parameter], tolerance: float) -> torch.optim.Optimizer:
    return torch.optim.LBFGS(
        parameters,
        max_iter=1,  # so that a step is one iteration: shown, saved, counted
        max_eval=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=tolerance,  # 5e-4 of one logarithm: the weight is right to 0.1 %
        tolerance_change=1e-9,
    )
