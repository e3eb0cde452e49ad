"""Modules that own parameters and call argmin."""

from .deblur import TVDeblur, TVDeblurer
from .dequantize import Dequantize
from .total_variation import TVDenoise, TVDenoiser

__all__ = ["Dequantize", "TVDeblur", "TVDeblurer", "TVDenoise", "TVDenoiser"]
