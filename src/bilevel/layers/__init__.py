"""Modules that own parameters and call argmin, or a fixed number of a solver's steps."""

from .deblur import TVDeblur, TVDeblurer
from .dequantize import Dequantize
from .equilibrium import Equilibrium, MonotoneEquilibrium, jacobian_penalty
from .filters import FilterDenoise
from .flow import GradientFlow
from .potentials import (
    AbsolutePotential,
    FilterPotential,
    FirmPotential,
    HuberPotential,
    SplinePotential,
)
from .problems import LeastSquaresFit, Projection, QuadraticProgram, SparseCode
from .segment import Segmenter
from .sparse_coding import ALISTA, LISTA, CoupledLISTA, HyperLISTA, analytic_weight
from .total_variation import PredictedTVDenoise, TVDenoise, TVDenoiser
from .unrolled import Unrolled
from .variational import VariationalNetwork

__all__ = [
    "ALISTA",
    "AbsolutePotential",
    "LISTA",
    "CoupledLISTA",
    "Dequantize",
    "Equilibrium",
    "FilterDenoise",
    "FilterPotential",
    "FirmPotential",
    "GradientFlow",
    "HuberPotential",
    "HyperLISTA",
    "LeastSquaresFit",
    "MonotoneEquilibrium",
    "PredictedTVDenoise",
    "Projection",
    "QuadraticProgram",
    "Segmenter",
    "SparseCode",
    "SplinePotential",
    "TVDeblur",
    "TVDeblurer",
    "TVDenoise",
    "TVDenoiser",
    "Unrolled",
    "VariationalNetwork",
    "analytic_weight",
    "jacobian_penalty",
]
