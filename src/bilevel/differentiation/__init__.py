"""Strategies: how a solution is differentiated."""

from .base import Strategy
from .bounds import Lipschitz
from .certificate import Certificate
from .flat_zones import FlatZones
from .implicit import FixedPoint, Implicit, OneStep, Truncated
from .linear_solvers import CG, GMRES, Anderson, BiCGStab, Dense, LinearSolver, Neumann
from .partly_smooth import PartlySmooth
from .piggyback import Piggyback
from .smoothed import Smoothed
from .unrolled import Identified, Unroll

__all__ = [
    "CG",
    "GMRES",
    "Anderson",
    "BiCGStab",
    "Certificate",
    "Dense",
    "FixedPoint",
    "FlatZones",
    "Identified",
    "Implicit",
    "LinearSolver",
    "Lipschitz",
    "Neumann",
    "OneStep",
    "PartlySmooth",
    "Piggyback",
    "Smoothed",
    "Strategy",
    "Truncated",
    "Unroll",
]
