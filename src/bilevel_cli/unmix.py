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
    from bilevel.tasks import arrays, files
    from bilevel.unmix import unmix

    arrays.check_writable(output, force)
    files.check_no_input(output, cube, endmembers)
    found = unmix(arrays.read(cube), arrays.read(endmembers), weight=weight, normalise=normalise)
    arrays.write(output, found, force)
    pixels = found[..., 0].size
    say(f"{output}: abundances of {found.shape[-1]} materials in {pixels} pixels")
