"""Solvers: z <- T(z)."""

from .active_set import InteriorPoint
from .admm import ADMM
from .base import Solver
from .descent import GradientDescent
from .direct_prox import DirectProx
from .external import Borrowed, External
from .forward_backward import ForwardBackward
from .linear_program import LinearProgram
from .newton import Newton
from .primal_dual import PrimalDual
from .splitting import DavisYin, DouglasRachford

__all__ = [
    "ADMM",
    "Borrowed",
    "DavisYin",
    "DirectProx",
    "DouglasRachford",
    "External",
    "ForwardBackward",
    "GradientDescent",
    "InteriorPoint",
    "LinearProgram",
    "Newton",
    "PrimalDual",
    "Solver",
]
