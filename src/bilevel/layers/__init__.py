"""Modules that own parameters and call argmin."""

from .deblur import TVDeblur, TVDeblurer
from .filters import FilterDenoise
from .total_variation import TVDenoise, TVDenoiser

__all__ = ["FilterDenoise", "TVDeblur", "TVDeblurer", "TVDenoise", "TVDenoiser"]
