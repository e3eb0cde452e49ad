"""Linear operators."""

from .base import Identity, Operator, Stack
from .blur import Blur
from .boundaries import Boundary, Periodic, Symmetric, Zero
from .convolution import Convolution
from .differences import Gradient
from .downsample import Downsample
from .fourier import DCT, FFT, AsComplex, AsReal
from .mask import Mask
from .matrix import Matrix
from .second_differences import Hessian, Laplacian, SymmetrizedGradient
from .sums import Part

__all__ = [
    "AsComplex",
    "AsReal",
    "Blur",
    "Boundary",
    "Convolution",
    "DCT",
    "Downsample",
    "FFT",
    "Gradient",
    "Hessian",
    "Identity",
    "Laplacian",
    "Mask",
    "Matrix",
    "Operator",
    "Part",
    "Periodic",
    "Stack",
    "Symmetric",
    "SymmetrizedGradient",
    "Zero",
]
