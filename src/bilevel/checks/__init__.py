"""What the user gave is looked at once, before iterating."""

from .boundary import as_problem, boundary
from .options import Options, check_modes

__all__ = ["Options", "as_problem", "boundary", "check_modes"]
