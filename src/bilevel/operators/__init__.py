"""Linear operators."""

from .base import Identity, Operator, Stack
from .convolution import Convolution
from .differences import Gradient
from .matrix import Matrix

__all__ = ["Convolution", "Gradient", "Identity", "Matrix", "Operator", "Stack"]
