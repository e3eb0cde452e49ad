"""Terms: the functions that an energy is a sum of."""

from .base import Composed, Dualizable, Proximable, Smooth, Term, Weighted
from .concave import ETP, Geman, LogSum
from .envelopes import MoreauEnvelope
from .groups import GroupL2, SparseL21
from .logarithms import Entropy, KullbackLeibler, LogBarrier
from .losses import Absolute, Hinge, Quantile, SquaredHinge
from .nonconvex import L0, MCP, SCAD, TruncatedQuadratic
from .norms import L1, L2, L21, ElasticNet
from .plug_and_play import PlugAndPlay
from .quadratic import Quadratic
from .sets import Box, L2Ball, NonNegative, Simplex
from .smooth import Huber, LeastSquares, Logistic, Potential
from .softmax import CrossEntropy, LogSumExp
from .squared_norms import SquaredL1, SquaredLinf
from .total_variation import TotalVariation
from .wrapped import Orthogonal, Separable

__all__ = [
    "ETP",
    "L0",
    "L1",
    "L2",
    "L21",
    "MCP",
    "SCAD",
    "Absolute",
    "Box",
    "Composed",
    "CrossEntropy",
    "Dualizable",
    "ElasticNet",
    "Entropy",
    "Geman",
    "GroupL2",
    "Hinge",
    "Huber",
    "KullbackLeibler",
    "L2Ball",
    "LeastSquares",
    "LogBarrier",
    "LogSum",
    "LogSumExp",
    "Logistic",
    "MoreauEnvelope",
    "NonNegative",
    "Orthogonal",
    "PlugAndPlay",
    "Potential",
    "Proximable",
    "Quadratic",
    "Quantile",
    "Separable",
    "Simplex",
    "Smooth",
    "SparseL21",
    "SquaredHinge",
    "SquaredL1",
    "SquaredLinf",
    "Term",
    "TotalVariation",
    "TruncatedQuadratic",
    "Weighted",
]
