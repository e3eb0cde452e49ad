"""bilevel segment, bilevel learn segment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Force, app, command, learn_app
from .console import say


@command(app, "segment", "bilevel segment photo.png --scribbles strokes.png -o regions.png")
def segment_file(
    image: Annotated[Path, typer.Argument(help="A gray or colour image.", show_default=False)],
    scribbles: Annotated[
        Path,
        typer.Option(
            help="A drawing of the same size: black is free, every other flat colour one region.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The regions, by number.", show_default=False)
    ],
    model: Annotated[Path | None, typer.Option(help="A run folder of learn segment.")] = None,
    force: Force = False,
) -> None:
    """Divide an image into the regions that strokes name.

    Each pixel goes by its colour and place, compared with the strokes', and by its neighbours,
    whose edges decide where a region ends. The output has gray values 1, 2, ... in the order of
    the strokes' colours, dark to bright.
    """
    from bilevel.tasks import images, segment

    images.check_writable(output, force)
    picture = images.read(image)
    strokes = segment.read_scribbles(scribbles, picture)
    labels = segment.segment(segment.load(model), picture, strokes)
    images.write(output, segment.as_image(labels), force)
    say(f"{output} ({strokes.max()} regions)")


@command(learn_app, "segment", "bilevel learn segment --images bsds --out runs/regions")
def learn_segment(
    images: Annotated[
        Path,
        typer.Option(
            help="Images, each with human segmentations beside it, a .mat of BSDS500.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The run folder to make.", show_default=False)],
    steps: Annotated[int, typer.Option(help="At most so many; it ends when it is there.")] = 10,
    seed: Annotated[int, typer.Option(help="Of the strokes, which are made up.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Learn to segment: how much colours, places, neighbours and edges count.

    Strokes are made up inside the regions that people have drawn; the model learns to give the
    other pixels their region.
    """
    from bilevel.tasks import segment

    model = segment.learn(images, out, steps=steps, seed=seed, resume=resume)
    say("Learned: " + ", ".join(f"{name} {model.value(name):.4g}" for name in segment.NAMES))
    say(f"Next: bilevel segment IMAGE --scribbles S -o OUT --model {out}")
