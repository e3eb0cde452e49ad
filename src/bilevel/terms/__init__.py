"""Terms: the functions that an energy is a sum of."""

from .affine import Affine, HalfSpace, Hyperplane
from .balls import L0Ball, L1Ball, L1InfBall, L21Ball, LinfBall
from .base import Composed, Dualizable, Proximable, Smooth, Term, Weighted
from .cardinality import SparseEnvelope
from .concave import ETP, Geman, LogSum
from .cones import Monotone, PositiveSemidefinite, SecondOrderCone
from .envelopes import MoreauEnvelope
from .groups import GroupL2, SparseL21
from .hyperplane_box import HyperplaneBox
from .linear import Largest, Linear
from .logarithms import Entropy, KullbackLeibler, LogBarrier
from .losses import Absolute, Hinge, Quantile, SquaredHinge
from .matrices import Hankel, Nuclear, NuclearBall, SpectralBall, SpectralNorm
from .max_norms import L1Inf, Linf, SortedL1
from .nonconvex import L0, MCP, SCAD, TruncatedQuadratic
from .norms import L1, L2, L21, ElasticNet
from .plug_and_play import RED, PlugAndPlay
from .quadratic import Quadratic
from .sets import Box, L2Ball, NonNegative, Simplex
from .singular_values import SingularValues
from .smooth import Huber, LeastSquares, Logistic, Potential
from .softmax import CrossEntropy, LogSumExp
from .spline import Spline
from .squared_norms import SquaredL1, SquaredLinf
from .total_variation import TotalVariation, TotalVariation1D
from .trimmed import TrimmedL1
from .vector_field import VectorField
from .wrapped import Anchored, Orthogonal, Separable

__all__ = [
    "Affine",
    "Anchored",
    "HalfSpace",
    "Hankel",
    "Hyperplane",
    "HyperplaneBox",
    "L0Ball",
    "ETP",
    "L0",
    "L1",
    "L1Ball",
    "L1Inf",
    "L1InfBall",
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
    "L21Ball",
    "L2Ball",
    "Largest",
    "LeastSquares",
    "Linear",
    "Linf",
    "LinfBall",
    "Logistic",
    "Monotone",
    "NonNegative",
    "Nuclear",
    "NuclearBall",
    "PositiveSemidefinite",
    "Potential",
    "Proximable",
    "SecondOrderCone",
    "Simplex",
    "SingularValues",
    "Smooth",
    "SortedL1",
    "SpectralBall",
    "SpectralNorm",
    "KullbackLeibler",
    "LogBarrier",
    "LogSum",
    "LogSumExp",
    "MoreauEnvelope",
    "Orthogonal",
    "PlugAndPlay",
    "RED",
    "SparseEnvelope",
    "Spline",
    "Quadratic",
    "Quantile",
    "Separable",
    "SparseL21",
    "SquaredHinge",
    "SquaredL1",
    "SquaredLinf",
    "Term",
    "TotalVariation",
    "TotalVariation1D",
    "TrimmedL1",
    "TruncatedQuadratic",
    "VectorField",
    "Weighted",
]
