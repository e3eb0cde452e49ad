"""The command line, called as a person does; its fixtures are in conftest.py."""

import numpy as np
from typer.testing import CliRunner

from bilevel.tasks import images
from bilevel_cli import app


def bilevel(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def said(result):
    """What was printed, on one line."""
    return " ".join(result.output.split())


def psnr(path, reference):
    a, b = images.read(path).pixels, images.read(reference).pixels
    assert a.shape == b.shape
    return -10 * np.log10(((a - b) ** 2).mean())
