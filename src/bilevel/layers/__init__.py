"""Modules that own parameters and call argmin."""

from .deblur import TVDeblur, TVDeblurer
from .problems import LeastSquaresFit, Projection, QuadraticProgram, SparseCode
from .total_variation import TVDenoise, TVDenoiser

__all__ = [
    "LeastSquaresFit",
    "Projection",
    "QuadraticProgram",
    "SparseCode",
    "TVDeblur",
    "TVDeblurer",
    "TVDenoise",
    "TVDenoiser",
]
