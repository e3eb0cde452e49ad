"""Terms: the functions that an energy is a sum of."""

from .affine import Affine, HalfSpace, Hyperplane
from .balls import L0Ball, L1Ball, L1InfBall, L21Ball, LinfBall
from .base import Composed, Dualizable, Proximable, Smooth, Term, Weighted
from .cones import Monotone, PositiveSemidefinite, SecondOrderCone
from .hyperplane_box import HyperplaneBox
from .matrices import Hankel, Nuclear, NuclearBall, SpectralBall, SpectralNorm
from .max_norms import L1Inf, Linf, SortedL1
from .norms import L1, L2, L21, ElasticNet
from .sets import Box, L2Ball, NonNegative, Simplex
from .smooth import Huber, LeastSquares, Logistic, Potential
from .total_variation import TotalVariation

__all__ = [
    "Affine",
    "HalfSpace",
    "Hankel",
    "Hyperplane",
    "HyperplaneBox",
    "L0Ball",
    "L1",
    "L1Ball",
    "L1Inf",
    "L1InfBall",
    "L2",
    "L21",
    "Box",
    "Composed",
    "Dualizable",
    "ElasticNet",
    "Huber",
    "L21Ball",
    "L2Ball",
    "LeastSquares",
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
    "Smooth",
    "SortedL1",
    "SpectralBall",
    "SpectralNorm",
    "Term",
    "TotalVariation",
    "Weighted",
]
