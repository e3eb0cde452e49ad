"""Modules that own parameters and call argmin."""

from .total_variation import TVDenoise, TVDenoiser

__all__ = ["TVDenoise", "TVDenoiser"]
