"""Strategies: how a solution is differentiated."""

from .base import Strategy
from .certificate import Certificate
from .flat_zones import FlatZones
from .implicit import FixedPoint, Implicit, OneStep, Truncated
from .linear_solvers import CG, GMRES, Anderson, BiCGStab, Dense, LinearSolver, Neumann
from .unrolled import Unroll

__all__ = [
    "CG",
    "GMRES",
    "Anderson",
    "BiCGStab",
    "Certificate",
    "Dense",
    "FixedPoint",
    "FlatZones",
    "Implicit",
    "LinearSolver",
    "Neumann",
    "OneStep",
    "Strategy",
    "Truncated",
    "Unroll",
]
