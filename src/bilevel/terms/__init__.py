"""Terms: the functions that an energy is a sum of."""

from .base import Composed, Dualizable, Proximable, Smooth, Term, Weighted
from .norms import L1, L2, L21, ElasticNet
from .sets import Box, L2Ball, NonNegative, Simplex
from .smooth import Huber, LeastSquares, Logistic, Potential
from .total_variation import TotalVariation, TotalVariation1D

__all__ = [
    "L1",
    "L2",
    "L21",
    "Box",
    "Composed",
    "Dualizable",
    "ElasticNet",
    "Huber",
    "L2Ball",
    "LeastSquares",
    "Logistic",
    "NonNegative",
    "Potential",
    "Proximable",
    "Simplex",
    "Smooth",
    "Term",
    "TotalVariation",
    "TotalVariation1D",
    "Weighted",
]
