"""bilevel denoise, bilevel deblur, bilevel inpaint: files in, files out."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import Force, app, command
from .console import progress, say

if TYPE_CHECKING:
    from bilevel.tasks.restorer import Restorer

Inputs = Annotated[
    list[Path],
    typer.Argument(metavar="IN...", help="Images, or folders of them.", show_default=False),
]
Output = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="A file; a folder where there are several images."),
]
Model = Annotated[Path | None, typer.Option(help="A run folder with a learned model.")]
Weight = Annotated[
    float | None, typer.Option(help="Without a model: the weight of total variation.")
]
Noise = Annotated[
    float | None,
    typer.Option(help="Standard deviation of the noise, of 255.  \\[default: estimated]"),
]
Report = Annotated[
    bool | None,
    typer.Option(
        "--report/--no-report",
        help="A page beside each result: before and after, other weights, how exact it is.  "
        "\\[default: for a single image]",
        show_default=False,
    ),
]


@command(app, "denoise", "bilevel denoise noisy.png -o clean.png --model runs/tv")
def denoise_files(
    inputs: Inputs,
    output: Output = None,
    model: Model = None,
    weight: Weight = None,
    noise: Noise = None,
    report: Report = None,
    force: Force = False,
) -> None:
    """Denoise images: gray or colour, PNG, TIFF, JPEG or NPY, 8 or 16 bits or floats.

    By the filters that come with the package; or give a --model that you learned, or a --weight of
    total variation. Results have the kind of the images; without -o they lie beside them as
    NAME_denoised. Files that cannot be read are skipped with a warning.
    """
    from bilevel.tasks.denoise import Denoise
    from bilevel.tasks.files import Restoration
    from bilevel.tasks.shipped import ShippedDenoiser

    if model is None and weight is None:
        restorer: Restorer = ShippedDenoiser(noise)
    else:
        restorer = Restoration.of(Denoise(), model, weight, noise)
    options = {"model": model, "weight": weight, "noise": noise}
    _restore_files(restorer, options, inputs, output, report, force, "denoised")


@command(app, "deblur", "bilevel deblur shaken.png --kernel k.png -o sharp.png --weight 0.002")
def deblur_files(
    inputs: Inputs,
    kernel: Annotated[
        str,
        typer.Option(
            help="What one bright point became: a gray image, NPY or NPZ (k.npz:NAME), divided by "
            "its sum; or gaussian:SIGMA, motion:LENGTH:DEGREES.",
            show_default=False,
        ),
    ],
    output: Output = None,
    model: Model = None,
    weight: Weight = None,
    noise: Noise = None,
    report: Report = None,
    force: Force = False,
) -> None:
    """Deblur images whose blur kernel is known, with total variation. Files as bilevel denoise.

    Give a learned --model or a --weight, about 0.0005 to 0.01: the less noise, the smaller; else
    the weight is the usual one for the noise of each image. Nothing is assumed of what lies beyond
    the edges. Without -o results are NAME_deblurred.
    """
    from bilevel.tasks import kernels
    from bilevel.tasks.deblur import Deblur
    from bilevel.tasks.files import Restoration

    kernels.read_one(kernel)
    restorer = Restoration.of(Deblur((kernel,)), model, weight, noise)
    options = {"kernel": kernel, "model": model, "weight": weight, "noise": noise}
    _restore_files(restorer, options, inputs, output, report, force, "deblurred")


@command(app, "inpaint", "bilevel inpaint scratched.png --mask scratches.png -o whole.png")
def inpaint_files(
    inputs: Inputs,
    mask: Annotated[
        Path,
        typer.Option(
            help="An image of the same size: black is known, white (and gray) is missing.",
            show_default=False,
        ),
    ],
    output: Output = None,
    weight: Annotated[
        float | None,
        typer.Option(
            help="Denoise the known pixels, too, with this weight of total variation.  "
            "\\[default: they are kept as they are]"
        ),
    ] = None,
    report: Report = None,
    force: Force = False,
) -> None:
    """Fill in missing pixels by total variation, from those around them. Files as bilevel denoise.

    Scratches, text and lost pixels fill well; large holes become flat. Without -o results are
    NAME_inpainted.
    """
    from bilevel.tasks.files import check_weight
    from bilevel.tasks.inpaint import Inpainter

    if weight is not None:
        check_weight(weight)
    options = {"mask": mask, "weight": weight}
    _restore_files(Inpainter.of(mask, weight), options, inputs, output, report, force, "inpainted")


def _restore_files(
    restorer: Restorer,
    options: dict[str, Any],
    inputs: list[Path],
    output: Path | None,
    report: bool | None,
    force: bool,
    done: str,
) -> None:
    from bilevel.reports import one_image
    from bilevel.tasks import files, images

    pairs, count = files.plan(inputs, output, force, done), 0
    alone = len(pairs) == 1
    targets = [target for _, target in pairs]
    pages = files.pages(targets, force) if report or (report is None and alone) else []
    with progress(len(pairs), done) as tick:
        for (source, target), page in zip_longest(pairs, pages):
            restored = files.restore(source, restorer, alone)
            if restored is not None:
                count += 1
                images.write(target, restored.result, force)
                say(f"{target}{restored.told}")
                if page is not None:
                    heading = f"{source.name}, {done}"
                    made = {"input": source, "output": target, **options}
                    say(f"Report: {one_image.write(page, heading, restored, restorer, made)}")
            tick()
    if not count:
        raise ValueError(f"None of the {len(pairs)} images could be {done}: see the warnings.")
