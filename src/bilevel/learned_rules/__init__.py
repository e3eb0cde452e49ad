"""Rules on the sequence of iterates that are learned: on problems like those to be solved."""

from .line_search import LearnedLineSearch
from .lstm import CoordinatewiseLSTM
from .training import learn_rule

__all__ = ["CoordinatewiseLSTM", "LearnedLineSearch", "learn_rule"]
