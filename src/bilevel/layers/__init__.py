"""Modules that own parameters and call argmin."""

from .deblur import TVDeblur, TVDeblurer
from .segment import Segmenter
from .total_variation import TVDenoise, TVDenoiser

__all__ = ["Segmenter", "TVDeblur", "TVDeblurer", "TVDenoise", "TVDenoiser"]
