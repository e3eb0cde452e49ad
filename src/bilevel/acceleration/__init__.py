"""Rules on the sequence of iterates."""

from .base import Acceleration, Plain
from .line_search import Backtracking, ExactLineSearch
from .momentum import Nesterov, OverRelaxation
from .primal_dual import Accelerated, Halpern

__all__ = [
    "Accelerated",
    "Acceleration",
    "Backtracking",
    "ExactLineSearch",
    "Halpern",
    "Nesterov",
    "OverRelaxation",
    "Plain",
]
