"""bilevel segment, bilevel learn segment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .app import Force, app, command, learn_app, seed_option
from .console import say
from .learn import EVERY, Out, Resume, Steps, check_unchanged, how_to_resume


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
    from bilevel.tasks import files, images, segment

    images.check_writable(output, force)
    files.check_no_input(output, image, scribbles)
    if output.suffix.lower() in (".jpg", ".jpeg"):
        raise ValueError(f"The output {output} would lose regions in JPEG. Name it NAME.png.")
    picture = images.read(image)
    strokes = segment.read_scribbles(scribbles, picture)
    labels = segment.segment(segment.load(model), picture, strokes)
    images.write(output, segment.as_image(labels), force)
    say(f"{output} ({strokes.max()} regions)")


@command(learn_app, "segment", "bilevel learn segment --images bsds --out runs/regions")
def learn_segment(
    out: Out,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Images, each with human segmentations beside it, a .mat of BSDS500.",
            show_default=False,
        ),
    ] = None,
    steps: Steps = 20,
    seed: Annotated[
        int | None, seed_option("Of the strokes, which are made up.  \\[default: 0]")
    ] = None,
    resume: Resume = False,
) -> None:
    """Learn to segment: how much colours, places, neighbours and edges count.

    Strokes are made up inside the regions that people have drawn; the model learns to give the
    other pixels their region. Every fifth image is left out, for the report.
    """
    from bilevel.reports import segment as report
    from bilevel.tasks import regions, segment

    given = {"images": images and str(images.resolve()), "seed": seed}
    if resume:
        config = segment.options(out)
        check_unchanged(out, given, config)
    elif images is None:
        raise ValueError("No images. Name a folder of segmented images with --images.")
    else:
        config = {"images": given["images"], "seed": seed or 0}
    paths = segment.segmented(Path(config["images"]))
    held = paths[::EVERY]
    others = [path for path in paths if path not in held]
    with how_to_resume(out, segment.TASK):
        model = segment.learn(others, out, steps=steps, config=config, resume=resume)
    samples = segment.samples(held, seed=config["seed"] + len(paths))
    scores = regions.judge(model, samples, [path.stem for path in held], out)
    say("Learned: " + ", ".join(f"{name} {model.value(name):.4g}" for name in segment.NAMES))
    mean = ", ".join(f"{method} {iou:.3f}" for method, iou in regions.means(scores).items())
    say(f"Mean intersection over union on {len(held)} other images: {mean}")
    say(f"Report: {report.write(out)}")
    say(f"Next: bilevel segment IMAGE --scribbles S -o OUT --model {out}")
