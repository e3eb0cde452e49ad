"""bilevel unmix: abundances of a hyperspectral cube."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Force, app, command
from .console import say


@command(app, "unmix", "bilevel unmix cube.npy --endmembers E.npy -o abundances.npy")
def unmix_file(
    cube: Annotated[Path, typer.Argument(metavar="CUBE.npy", help="(H, W, bands).")],
    endmembers: Annotated[Path, typer.Option(help="(bands, materials), .npy.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="(H, W, materials), .npy.")],
    normalise: Annotated[
        bool, typer.Option(help="Let each pixel have a brightness of its own.")
    ] = False,
    weight: Annotated[
        float, typer.Option(help="With --normalise: that of the sum of abundances.")
    ] = 0.0,
    force: Force = False,
) -> None:
    """How much of each material is in each pixel: non-negative, with sum 1."""
    import numpy as np

    from bilevel.unmix import unmix

    if output.exists() and not force:
        raise ValueError(f"{output} exists: pass --force to overwrite it.")
    found = unmix(np.load(cube), np.load(endmembers), weight=weight, normalise=normalise)
    with output.open("wb") as file:
        np.save(file, found)
    pixels = found[..., 0].size
    say(f"{output}: abundances of {found.shape[-1]} materials in {pixels} pixels")
