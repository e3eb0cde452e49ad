"""What a solution map is: finitely many formulas, of which the energy selects one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...problem import Problem
from ...terms.base import Term

Theta = dict[str, Tensor]  # the parameters by name, float64, without a batch
Pattern = Any  # which of the formulas: an active set, a support, signs

_MARGIN = 1e-2  # how far a drawn θ is from the kinks, in each of some random directions


@dataclass(frozen=True, eq=False)
class SolutionMap:
    """x(θ) = argmin over x of E(x, θ), in closed form.

    Each pattern has a formula x = piece(θ, pattern), smooth in θ; the solution is the one of least
    energy. Its Jacobian is that of the formula, exact to rounding.
    """

    name: str
    formula: str  # E(x, θ), to be read
    draw_any: Callable[[torch.Generator], Theta]
    value: Callable[[Tensor, Theta], Tensor]  # E(x, θ) in plain torch, inf outside the constraints
    energy: Callable[[Theta], Problem | Term]  # for argmin, a batch of one
    patterns: tuple[Pattern, ...]
    piece: Callable[[Theta, Pattern], Tensor]  # may be infeasible, or NaN where it does not exist

    def __str__(self) -> str:
        return self.name

    def draw(self, seed: int) -> Theta:
        """Random parameters at which the solution is differentiable, 1e-2 and more from a kink."""
        generator = torch.Generator().manual_seed(seed)
        for _ in range(1000):
            theta = self.draw_any(generator)
            here = self.optimal(theta)
            near = (self.optimal(_moved(theta, generator)) for _ in range(8))
            if len(here) == 1 and all(other == here for other in near):
                return theta
        raise RuntimeError(f"{self.name}: every draw of seed {seed} lies near a kink. Mend draw.")

    def optimal(self, theta: Theta) -> list[Pattern]:
        """The patterns whose formula gives the least energy: one, and several at a kink."""
        values = torch.stack([self._energy_of(theta, pattern) for pattern in self.patterns])
        least = values.min()
        slack = 1e-13 * (1 + least.abs())
        return [p for p, v in zip(self.patterns, values, strict=True) if v <= least + slack]

    def _energy_of(self, theta: Theta, pattern: Pattern) -> Tensor:
        return self.value(self.piece(theta, pattern), theta).nan_to_num(torch.inf)

    def solution(self, theta: Theta) -> Tensor:
        """x(θ)."""
        return self.piece(theta, self.optimal(theta)[0])

    def jacobians(self, theta: Theta) -> list[Theta]:
        """dx/dθ by name, of shape x.shape + θ.shape: one, and at a kink that of every side."""
        return [self._jacobian(theta, pattern) for pattern in self.optimal(theta)]

    def _jacobian(self, theta: Theta, pattern: Pattern) -> Theta:
        def formula(*tensors: Tensor) -> Tensor:
            return self.piece(dict(zip(theta, tensors, strict=True)), pattern)

        found = torch.autograd.functional.jacobian(formula, tuple(theta.values()))
        return dict(zip(theta, found, strict=True))  # type: ignore[arg-type]

    def gradients(self, theta: Theta, g: Tensor) -> list[Theta]:
        """The gradient of <g, x(θ)> by name: one, and at a kink that of every side."""
        return [
            {name: torch.tensordot(g, part, g.ndim) for name, part in jacobian.items()}
            for jacobian in self.jacobians(theta)
        ]


@dataclass(frozen=True, eq=False)
class Kink:
    """A map at parameters where only directional derivatives exist: two formulas tie."""

    name: str
    map: SolutionMap
    theta: Theta

    def __str__(self) -> str:
        return self.name


def error(found: Theta, exact: list[Theta]) -> float:
    """The relative error of a gradient, all parameters together (absolute where the exact one is
    0); at a kink the distance to the segment between its two sides, all of which a conservative
    derivative may give."""
    names = list(found)
    x = torch.cat([found[name].detach().flatten() for name in names])
    sides = torch.stack([torch.cat([side[name].flatten() for name in names]) for side in exact])
    a, b = sides[0], sides[-1]
    share = ((x - a) @ (b - a) / (b - a).square().sum()).nan_to_num(0.0).clamp(0, 1)
    return float((x - a - share * (b - a)).norm()) / (float(sides.norm(dim=1).max()) or 1.0)


def _moved(theta: Theta, generator: torch.Generator) -> Theta:
    return {
        name: part + _MARGIN * torch.randn(part.shape, generator=generator, dtype=part.dtype)
        for name, part in theta.items()
    }
