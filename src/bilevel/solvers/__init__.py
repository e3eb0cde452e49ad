"""Solvers: z <- T(z)."""

from .active_set import InteriorPoint
from .admm import ADMM
from .base import Solver
from .bregman import BregmanPrimalDual
from .celer import Celer
from .descent import GradientDescent
from .direct_prox import DirectProx
from .external import Borrowed, External
from .extragradient import ExtraGradient, Optimistic
from .forward_backward import ForwardBackward
from .geometry import Burg, PositiveEntropy
from .lawson_hanson import LawsonHanson
from .linear_program import LinearProgram
from .mirror import MirrorDescent
from .newton import Newton
from .primal_dual import PrimalDual
from .split_penalties import SplitPenalties
from .splitting import DavisYin, DouglasRachford

__all__ = [
    "ADMM",
    "Borrowed",
    "BregmanPrimalDual",
    "Burg",
    "Celer",
    "DavisYin",
    "DirectProx",
    "DouglasRachford",
    "External",
    "ExtraGradient",
    "ForwardBackward",
    "GradientDescent",
    "InteriorPoint",
    "LawsonHanson",
    "LinearProgram",
    "MirrorDescent",
    "Newton",
    "Optimistic",
    "PositiveEntropy",
    "PrimalDual",
    "Solver",
    "SplitPenalties",
]
