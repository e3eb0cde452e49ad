"""Rules on the sequence of iterates."""

from .base import Acceleration, Plain
from .descent import LBFGS, Armijo
from .guarded import Guarded
from .line_search import Backtracking, ExactLineSearch
from .momentum import Nesterov, OverRelaxation
from .primal_dual import Accelerated, Halpern, Rebalanced
from .quasi_newton import AndersonMixing, Broyden

__all__ = [
    "LBFGS",
    "Accelerated",
    "Acceleration",
    "AndersonMixing",
    "Armijo",
    "Backtracking",
    "Broyden",
    "ExactLineSearch",
    "Guarded",
    "Halpern",
    "Nesterov",
    "OverRelaxation",
    "Plain",
    "Rebalanced",
]
