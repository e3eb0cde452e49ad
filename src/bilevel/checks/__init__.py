"""What the user gave is looked at once, before iterating."""

from .boundary import as_problem, boundary
from .options import check_modes, check_options

__all__ = ["as_problem", "boundary", "check_modes", "check_options"]
