"""Modules that own parameters and call argmin."""

from .deblur import TVDeblur, TVDeblurer
from .total_variation import TVDenoise, TVDenoiser

__all__ = ["TVDeblur", "TVDeblurer", "TVDenoise", "TVDenoiser"]
