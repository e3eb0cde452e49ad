"""Rules on the sequence of iterates."""

from .base import Acceleration, Plain
from .descent import LBFGS, Armijo
from .line_search import Backtracking, ExactLineSearch
from .momentum import Nesterov, OverRelaxation
from .primal_dual import Accelerated, Halpern

__all__ = [
    "LBFGS",
    "Accelerated",
    "Acceleration",
    "Armijo",
    "Backtracking",
    "ExactLineSearch",
    "Halpern",
    "Nesterov",
    "OverRelaxation",
    "Plain",
]
