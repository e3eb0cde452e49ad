"""Linear operators."""

from .adapters import FromDeepinv, FromPyLops, to_deepinv, to_pylops
from .base import Identity, Operator, Stack
from .blur import Blur
from .boundaries import Boundary, Periodic, Symmetric, Zero
from .convolution import Convolution
from .differences import Gradient
from .downsample import Downsample
from .fourier import DCT, FFT, AsComplex, AsReal
from .groups import Groups
from .mask import Mask
from .matrix import Matrix
from .radon import Radon
from .second_differences import Hessian, Laplacian, SymmetrizedGradient
from .sparse_matrix import SparseMatrix
from .sums import Part
from .wavelet import Wavelet

__all__ = [
    "AsComplex",
    "AsReal",
    "Blur",
    "Boundary",
    "Convolution",
    "DCT",
    "Downsample",
    "FFT",
    "FromDeepinv",
    "FromPyLops",
    "Gradient",
    "Groups",
    "Hessian",
    "Identity",
    "Laplacian",
    "Mask",
    "Matrix",
    "Operator",
    "Part",
    "Periodic",
    "Radon",
    "SparseMatrix",
    "Stack",
    "Symmetric",
    "SymmetrizedGradient",
    "Wavelet",
    "Zero",
    "to_deepinv",
    "to_pylops",
]
