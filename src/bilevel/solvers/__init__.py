"""Solvers: z <- T(z)."""

from .active_set import InteriorPoint
from .base import Solver
from .descent import GradientDescent
from .external import Borrowed, External
from .forward_backward import ForwardBackward
from .primal_dual import PrimalDual

__all__ = [
    "Borrowed",
    "External",
    "ForwardBackward",
    "GradientDescent",
    "InteriorPoint",
    "PrimalDual",
    "Solver",
]
