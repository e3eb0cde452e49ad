"""The command `bilevel`, beside the package of that name, whose import is torch's.

Imports of `bilevel` are inside the commands, so that --help answers at once.
"""

from . import judge, learn, restore, segment, speech, unmix  # each registers its commands
from .app import app, main

__all__ = ["app", "judge", "learn", "main", "restore", "segment", "speech", "unmix"]
