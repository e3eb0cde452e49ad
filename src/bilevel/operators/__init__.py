"""Linear operators."""

from .base import Identity, Operator, Stack
from .convolution import Convolution
from .differences import Gradient
from .matrix import Matrix
from .parts import Groups, Part, Total

__all__ = [
    "Convolution",
    "Gradient",
    "Groups",
    "Identity",
    "Matrix",
    "Operator",
    "Part",
    "Stack",
    "Total",
]
