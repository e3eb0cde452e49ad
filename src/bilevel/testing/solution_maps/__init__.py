"""Solutions in closed form with their exact Jacobians, against which any library can be graded.

Small problems, float64, no batch. `MAPS` are drawn away from kinks; `KINKS` sit on one, and have
the Jacobian of every side.

>>> from bilevel.testing import solution_maps
>>> map = solution_maps.soft_threshold
>>> theta = map.draw(seed=0)  # {"y": ..., "w": ...}
>>> x = map.solution(theta)
>>> (jacobian,) = map.jacobians(theta)
>>> tuple(jacobian["y"].shape)
(4, 4)
"""

import torch

from .base import Kink, SolutionMap, Theta, error
from .least_squares import box, lasso, ridge
from .linear import game, transport
from .proxes import (
    ball,
    group_threshold,
    isotonic,
    low_rank,
    simplex,
    soft_threshold,
    total_variation,
)

MAPS = (
    ridge,
    lasso,
    box,
    soft_threshold,
    group_threshold,
    ball,
    simplex,
    total_variation,
    isotonic,
    low_rank,
    game,
    transport,
)


def _at(**values: list | float) -> Theta:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


_IDENTITY = [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]

KINKS = (
    Kink("|y_i| = w", soft_threshold, _at(y=[1.0, 3, -2, 0.25], w=1.0)),
    Kink("|y| = w", group_threshold, _at(y=[3.0, 4, 0, 0], w=5.0)),
    Kink("|y| = r", ball, _at(y=[3.0, 4, 0, 0], r=5.0)),
    Kink(
        "x on a bound, free to leave it",
        box,
        _at(A=_IDENTITY, b=[1.0, 0.5, -2, 3], lower=[-1.0] * 4, upper=[1.0] * 4),
    ),  # fmt: skip
    Kink("a coordinate at 0, free to grow", simplex, _at(y=[0.75, 0.25, 0, -1, -2], total=1.0)),
    Kink("two segments meet", total_variation, _at(y=[0.0, 0, 1.5, 0.5, 5], w=2.0)),
    Kink("two blocks meet", isotonic, _at(y=[2.0, 0, 1, 3, 4])),
)

__all__ = [
    "KINKS",
    "MAPS",
    "Kink",
    "SolutionMap",
    "ball",
    "box",
    "error",
    "game",
    "group_threshold",
    "isotonic",
    "lasso",
    "low_rank",
    "ridge",
    "simplex",
    "soft_threshold",
    "total_variation",
    "transport",
]
