"""Strategies: how a solution is differentiated."""

from .base import Strategy
from .certificate import Certificate
from .implicit import FixedPoint, Implicit, OneStep, Truncated
from .linear_solvers import CG, GMRES, Anderson, BiCGStab, Dense, LinearSolver, Neumann
from .piggyback import Piggyback
from .smoothed import Smoothed
from .unrolled import Unroll

__all__ = [
    "CG",
    "GMRES",
    "Anderson",
    "BiCGStab",
    "Certificate",
    "Dense",
    "FixedPoint",
    "Implicit",
    "LinearSolver",
    "Neumann",
    "OneStep",
    "Piggyback",
    "Smoothed",
    "Strategy",
    "Truncated",
    "Unroll",
]
