"""A map in the place of a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import Smooth


@dataclass(frozen=True, eq=False)
class VectorField(Smooth):
    """grad(x) = map(x): any map, a network say, in the place of a gradient.

    With a proximable g a "solution" has 0 in map(x) + dg(x): an equilibrium, a variational
    inequality, a saddle point where map is (grad_u L, -grad_v L). No function stands behind it: its
    value is NaN, there is no duality gap, no line search and no momentum, and a solve stops by the
    residual of T. ForwardBackward(step_size=...) converges for a map that is mu-strongly monotone
    and L-Lipschitz, for step sizes below 2 mu / L^2; a map that is only monotone, such as a game's,
    needs ExtraGradient(). The derivative is that of the solution, also in the map's own parameters;
    Implicit() with CG is for symmetric Jacobians alone, FixedPoint() is the default. The batch
    cannot be indexed: finished samples stay in it, frozen. Samples must not interact.
    """

    map: Callable[[Tensor], Tensor]  # (B, *event) -> the same

    def __post_init__(self) -> None:
        if not callable(self.map):
            raise TypeError(
                "VectorField needs a map, a function (B, *event) -> (B, *event), got "
                f"{type(self.map).__name__}."
            )

    def value(self, x: Tensor) -> Tensor:
        return x.new_full((len(x),), torch.nan)

    def grad(self, x: Tensor) -> Tensor:
        return self.map(x)

    def check(self, x: Tensor) -> None:
        with torch.no_grad():
            image = self.map(x)
        if not isinstance(image, Tensor) or image.shape != x.shape:
            got = getattr(image, "shape", type(image).__name__)
            raise ValueError(
                f"VectorField.map gives {tuple(got) if isinstance(got, torch.Size) else got} for "
                f"an x of shape {tuple(x.shape)}. A map to the same shape is needed."
            )

    @property
    def potential(self) -> bool:
        return False

    def take(self, index: Tensor, x: Tensor) -> None:
        return None  # what the map has closed over is not known
