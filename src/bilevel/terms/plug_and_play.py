"""A denoiser in the place of a prox."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like
from .base import Proximable


@dataclass(frozen=True, eq=False)
class PlugAndPlay(Proximable):
    """prox(x, step) = denoiser(x): any denoiser, a network say, in the place of a prox.

    With leveled=True the denoiser is called as denoiser(x, level), level = sqrt(step weight) of
    shape (B, 1, ..., 1), the standard deviation of the noise that such a prox removes.

    There is no function behind it: its value is NaN, and so is the energy's; there is no duality
    gap, and a solve stops by the residual of T alone. A fixed point is a solution in that sense
    only, and depends on the solver's step size, which has no default here. The iteration
    converges for a denoiser that is averaged, as the prox of a convex function is.
    The derivative is that of the fixed point, also in the denoiser's own parameters. Samples must
    not interact (no batch norm in training mode); the batch cannot be indexed, so finished samples
    stay in it, frozen.

    [1] Venkatakrishnan, Bouman, Wohlberg. Plug-and-play priors. GlobalSIP, 2013.
    [2] Ryu et al. Plug-and-play methods provably converge with properly trained denoisers. ICML,
        2019.
    """

    denoiser: Callable[..., Tensor]  # (B, *event) -> the same
    leveled: bool = False
    weight: Tensor | float = field(default=1.0, kw_only=True)

    batched: ClassVar[tuple[str, ...]] = ("weight",)
    tuned_by_step: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not callable(self.denoiser):
            raise TypeError(
                "PlugAndPlay needs a denoiser, a function (B, *event) -> (B, *event), got "
                f"{type(self.denoiser).__name__}."
            )

    def __rmul__(self, weight: Tensor | float) -> PlugAndPlay:
        if not self.leveled:
            raise TypeError(
                "PlugAndPlay(denoiser) has no weight: the denoiser alone says how much is removed. "
                "With leveled=True it is called with the noise level, sqrt(step weight)."
            )
        return super().__rmul__(weight)

    def check(self, x: Tensor) -> None:
        ones = (1,) * (x.ndim - 1)
        shape = tuple(self.weight.shape) if isinstance(self.weight, Tensor) else ()
        if shape not in ((), (1, *ones), (len(x), *ones)):
            raise ValueError(
                f"PlugAndPlay.weight has shape {shape} at x of shape {tuple(x.shape)}: a denoiser "
                f"takes one noise level a sample. Pass a number, or {(len(x), *ones)}."
            )

    def value(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), torch.nan)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -torch.inf  # nothing is known

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        level = ()
        if self.leveled:
            variance = like(expand(step, x) * self.weight, x)
            level = (variance.expand(len(x), *[1] * (x.ndim - 1)).sqrt(),)
        clean = self.denoiser(x, *level)
        if not isinstance(clean, Tensor) or clean.shape != x.shape:
            tensor = isinstance(clean, Tensor)
            got = f"shape {tuple(clean.shape)}" if tensor else type(clean).__name__
            raise ValueError(
                f"the denoiser of PlugAndPlay returned {got} for x of shape {tuple(x.shape)}: the "
                "same shape is needed."
            )
        return clean

    def take(self, index: Tensor, x: Tensor) -> None:
        return None  # what the denoiser holds for each sample is not ours to index
