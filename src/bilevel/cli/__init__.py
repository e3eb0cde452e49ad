"""The command `bilevel`. Heavy imports are inside the commands, so that --help answers soon."""

from . import judge, learn, restore, segment, speech, unmix  # each registers its commands
from .app import app, main

__all__ = ["app", "judge", "learn", "main", "restore", "segment", "speech", "unmix"]
