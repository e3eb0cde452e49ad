"""The optimality conditions of a problem as the equation that is differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from ..problem import Problem
from ..terms.linear import Linear
from .linearisation import Linearisation

if TYPE_CHECKING:
    from .inverse import Direct

Z = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Conditions:
    """(x, y_1, ...) -> `Problem.kkt`."""

    problem: Problem
    direct: Callable[[Problem], Direct] | None = None  # solves by the problem's structure

    def __call__(self, point: Z) -> Z:
        return self.problem.kkt(point[0], point[1:])

    def tilted(self, r: Tensor) -> Conditions:
        """Those of the energy + <r, x>."""
        return replace(self, problem=Problem((*self.problem.terms, Linear(r))))


def beside(M: Linearisation, point: Z, r: Tensor) -> Linearisation:
    """M at a point beside the solution, to see kinks: x - grad f(x), which the prox of g is taken
    of, does not move with x where f'' = 1, as for denoising, so the energy is tilted, too."""
    equation = M.equation
    if isinstance(equation, Conditions) and equation.problem.g is not None:
        equation = equation.tilted(r)
    return Linearisation(point, equation)
