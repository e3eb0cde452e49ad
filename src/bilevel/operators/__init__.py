"""Linear operators."""

from .base import Identity, Operator, Stack
from .blur import Blur
from .boundaries import Boundary, Periodic, Symmetric, Zero
from .convolution import Convolution
from .differences import Gradient
from .mask import Mask
from .matrix import Matrix

__all__ = [
    "Blur",
    "Boundary",
    "Convolution",
    "Gradient",
    "Identity",
    "Mask",
    "Matrix",
    "Operator",
    "Periodic",
    "Stack",
    "Symmetric",
    "Zero",
]
