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
from .total_variation import TVDenoise, TVDenoiser
from .unrolled import Unrolled

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
    "analytic_weight",
    "jacobian_penalty",
]
