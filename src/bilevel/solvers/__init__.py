"""Solvers: z <- T(z)."""

from .base import Solver
from .descent import GradientDescent
from .forward_backward import ForwardBackward
from .primal_dual import PrimalDual

__all__ = ["ForwardBackward", "GradientDescent", "PrimalDual", "Solver"]
