"""What a task is: what was done to the images, and the models that undo it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bilevel.layers import FilterDenoise
from bilevel.learning.risk import sure

Method = Callable[[np.ndarray, float], np.ndarray]  # (C, H, W), noise level of 255 -> the same


class Task(ABC):
    """An image is `see`n through something, then noise is added; a model `restore`s it."""

    name: ClassVar[str]  # the command, and the task in config.toml
    maker: ClassVar[str]  # what a learned model is called
    done: ClassVar[str]  # what was done to an image
    shown: ClassVar[int]  # side of the picture that a report shows with many weights

    @abstractmethod
    def at(self, number: int) -> Task:
        """The task for image `number`, where images may differ in what was done to them."""

    @property
    @abstractmethod
    def margin(self) -> tuple[int, int]:
        """(rows, columns) by which a seen image is smaller than the clean one."""

    @abstractmethod
    def see(self, clean: np.ndarray) -> np.ndarray:  # (C, H, W) -> (C, H', W')
        """What arrives, before the noise."""

    @abstractmethod
    def target(self, clean: np.ndarray) -> np.ndarray:  # (C, H, W) -> (C, H', W')
        """The pixels of the clean image that a seen image of it shows."""

    @abstractmethod
    def told(self) -> dict[str, Tensor]:
        """What a model is told beside the image and its noise level."""

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Its entries in config.toml."""

    @abstractmethod
    def model(self, per_noise: bool, weight: float | None = None) -> nn.Module:
        """A model to be learned; with a weight, one that has it."""

    def filters(self) -> nn.Module:
        """A filter bank to be learned."""
        raise ValueError(f"There is no filter bank for {self.name} yet: use the model 'tv'.")

    def with_weight(self, model: nn.Module, weight: float) -> nn.Module:
        """What the model would be with this weight at every noise level."""
        if isinstance(model, FilterDenoise):
            return model.with_weight(weight)
        return self.model(False, weight)

    @abstractmethod
    def usual_weight(self, level: float) -> float:
        """About the best for photographs, at a noise level of 255: where to look for the best."""

    @abstractmethod
    def classical(self) -> dict[str, Method]:
        """Well-known methods to compare with; they are told the noise level."""

    @torch.no_grad()
    def apply(self, model: nn.Module, seen: np.ndarray, level: float) -> np.ndarray:
        """(C, H, W) -> the same: each channel restored alone, at a noise level in units of 255."""
        batch = torch.from_numpy(np.ascontiguousarray(seen))[:, None]
        sigma = batch.new_full((len(batch),), level / 255)
        told = {name: value.expand(len(batch), *value.shape) for name, value in self.told().items()}
        return restore(model, {"noisy": batch, "sigma": sigma, **told})[:, 0].numpy()


def restore(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:  # -> (B, 1, H, W)
    """Computed in the precision of the model's parameters, given in that of the images."""
    dtype, asks = next(model.parameters()).dtype, model.asks
    told = (batch[name].to(dtype) for name in ("noisy", *asks))  # type: ignore[misc]
    return model(*told).to(batch["noisy"].dtype)


def noise_left(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Mean squared error over the noise's variance, averaged: every noise level counts the same.

    Of a batch without the clean images, Stein's estimate of it, the same at every call.
    """
    if "clean" not in batch:
        rng = torch.Generator().manual_seed(0)
        noisy, sigma = batch["noisy"], batch["sigma"]
        risk = sure(lambda y: restore(model, {**batch, "noisy": y}), noisy, sigma, generator=rng)
        return (risk / sigma.square()).mean()
    error = (restore(model, batch) - batch["clean"]).square().flatten(1).mean(1)
    return (error / batch["sigma"].square()).mean()


@torch.no_grad()
def weight_at(model: Any, level: float) -> float:
    """The weight that a model takes at a noise level of 255."""
    if "sigma" not in model.asks:
        return model.weight.item()
    return model.weight(model.offset.new_full((1,), level / 255)).item()
