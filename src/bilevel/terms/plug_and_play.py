"""A denoiser in the place of a prox, or of a gradient step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, inner, largest, like
from .base import Proximable, Smooth


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
        _check_callable("PlugAndPlay", self.denoiser)

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
        return _denoised("PlugAndPlay", self.denoiser, x, *level)

    def take(self, index: Tensor, x: Tensor) -> None:
        return None  # what the denoiser holds for each sample is not ours to index


@dataclass(frozen=True, eq=False)
class RED(Smooth):
    """f(x) = weight/2 <x, x - denoiser(x)>, grad f(x) = weight (x - denoiser(x)): regularisation by
    denoising.

    The two belong together for a denoiser with a symmetric derivative and denoiser(c x) = c
    denoiser(x) [1]; for others the gradient alone counts, solutions are the zeros of its sum with
    those of the other terms [2], and values mean nothing. Take ForwardBackward() or
    GradientDescent() with Nesterov(), which look at no value.
    The batch cannot be indexed, as with PlugAndPlay.

    [1] Romano, Elad, Milanfar. The little engine that could: regularization by denoising. SIIMS,
        2017.
    [2] Reehorst, Schniter. Regularization by denoising: clarifications and new interpretations.
        IEEE TCI, 2019.
    """

    denoiser: Callable[[Tensor], Tensor]  # (B, *event) -> the same
    # Lipschitz constant of x - denoiser(x): 2 for a denoiser that does not expand
    constant: Tensor | float = field(default=2.0, kw_only=True)
    weight: Tensor | float = field(default=1.0, kw_only=True)  # one number a sample, or for all

    batched: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        _check_callable("RED", self.denoiser)

    def check(self, x: Tensor) -> None:
        ones = (1,) * (x.ndim - 1)
        if isinstance(self.weight, Tensor) and self.weight.shape not in ((), (len(x), *ones)):
            raise ValueError(
                f"RED.weight has shape {tuple(self.weight.shape)} at x of shape {tuple(x.shape)}: "
                f"pass a number, or {(len(x), *ones)} of one a sample."
            )

    def value(self, x: Tensor) -> Tensor:
        return inner(x, self.grad(x)) / 2

    def grad(self, x: Tensor) -> Tensor:
        return self.weight * (x - _denoised("RED", self.denoiser, x))

    def lipschitz(self, x: Tensor) -> Scalar:
        return self.constant * largest(self.weight, x)

    def strong_convexity(self, x: Tensor) -> Scalar:
        return -torch.inf  # nothing is known

    def take(self, index: Tensor, x: Tensor) -> None:
        return None


def _check_callable(name: str, denoiser: object) -> None:
    if not callable(denoiser):
        raise TypeError(
            f"{name} needs a denoiser, a function (B, *event) -> (B, *event), got "
            f"{type(denoiser).__name__}."
        )


def _denoised(name: str, denoiser: Callable[..., Tensor], x: Tensor, *level: Tensor) -> Tensor:
    clean = denoiser(x, *level)
    if not isinstance(clean, Tensor) or clean.shape != x.shape:
        tensor = isinstance(clean, Tensor)
        got = f"shape {tuple(clean.shape)}" if tensor else type(clean).__name__
        raise ValueError(
            f"the denoiser of {name} returned {got} for x of shape {tuple(x.shape)}: the same "
            "shape is needed."
        )
    return clean
