"""bilevel learn denoise, bilevel learn deblur."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .app import command, learn_app, parameters, seed_option
from .console import progress, say

if TYPE_CHECKING:
    from bilevel.tasks.runs import Job

EVERY = 5  # every fifth sound or segmented image is for the report

Out = Annotated[Path, typer.Option(help="The run folder to make.", show_default=False)]
Images = Annotated[
    str | None,
    typer.Option(
        help="A folder of clean images, or 'skimage' for the photographs inside scikit-image.",
        show_default=False,
    ),
]
LearnNoise = Annotated[
    str | None,
    typer.Option(help="Standard deviation of 255 (25), or a range (5:50).  \\[default: 25]"),
]
ModelName = Annotated[
    str | None, typer.Option(help="'tv', or 'filters' to denoise.  \\[default: tv]")
]
Steps = Annotated[int, typer.Option(help="At most so many; it ends when it is there.")]
Crop = Annotated[int | None, typer.Option(help="Side of a crop.  \\[default: 64]")]
Crops = Annotated[int | None, typer.Option(help="How many crops.  \\[default: 48]")]
LearnSeed = Annotated[int | None, seed_option("Of crops and noise.  \\[default: 0]")]
NoClean = Annotated[
    bool,
    typer.Option("--no-clean", help="The images have the --noise themselves; none is clean."),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out; it knows its options.")
]
Kernels = Annotated[
    list[str] | None,
    typer.Option(
        "--kernel",
        help="A kernel, as for bilevel deblur; several in turn, or an NPZ file of several.",
        show_default=False,
    ),
]


@command(learn_app, "denoise", "bilevel learn denoise --images photos --noise 5:50 --out runs/tv")
def learn_denoise(
    out: Out,
    images: Images = None,
    noise: LearnNoise = None,
    model: ModelName = None,
    steps: Steps = 30,
    crop: Crop = None,
    crops: Crops = None,
    seed: LearnSeed = None,
    no_clean: NoClean = False,
    resume: Resume = False,
) -> None:
    """Learn a denoiser from the clean images of a folder.

    With one noise level it learns the weight of total variation; with a range, the weight as a
    function of the noise level. With --model filters, for one noise level, 48 filters, their
    weights and thresholds: take --crops 200 --steps 100 and some patience.

    With --no-clean it learns from noisy images alone, whose level you name: by Stein's estimate of
    the error (SURE), for Gaussian noise.
    """
    if no_clean and noise is None and not resume:
        raise ValueError("--no-clean needs --noise: the standard deviation that the images have.")
    given: dict[str, Any] = dict(
        images=images, noise=noise, model=model, crop=crop, crops=crops, seed=seed
    )
    if no_clean:
        given["clean"] = False
    _learn("denoise", given, out, steps, resume)


@command(
    learn_app,
    "deblur",
    "bilevel learn deblur --images photos --kernel k.png --noise 2 --out runs/sharp",
)
def learn_deblur(
    out: Out,
    images: Images = None,
    kernel: Kernels = None,
    noise: LearnNoise = None,
    model: ModelName = None,
    steps: Steps = 30,
    crop: Crop = None,
    crops: Crops = None,
    seed: LearnSeed = None,
    resume: Resume = False,
) -> None:
    """Learn to deblur from the clean images of a folder, which it blurs with known kernels.

    As bilevel learn denoise: it learns the weight of total variation, or with a range of noise
    levels the weight as a function of the noise level.
    """
    from bilevel.tasks import kernels

    given: dict[str, Any] = dict(
        images=images, noise=noise, model=model, crop=crop, crops=crops, seed=seed
    )
    if kernel:
        given["kernel"] = [kernels.resolve(text) for text in kernel]
    elif not resume:
        raise ValueError("No kernel. Name one with --kernel: a file, or gaussian:2.")
    _learn("deblur", given, out, steps, resume)


def _learn(name: str, given: dict[str, Any], out: Path, steps: int, resume: bool) -> None:
    from bilevel.learning.processes import is_first
    from bilevel.reports import restoration
    from bilevel.tasks import data, runs, sweep

    job = _job(name, given, out if resume else None)
    with how_to_resume(out, job.task.name):
        result = runs.learn(job, out, steps=steps, resume=resume)
    if not is_first():
        return
    if job.clean:  # the slider shows errors
        with progress(len(sweep.FACTORS), "weights") as tick:
            picture = sweep.worth_showing(job.task, data.photographs(job.images))
            level = job.levels[len(job.levels) // 2]
            sweep.save(sweep.sweep(job.task, result.model, picture, level, tick), out)
    path = restoration.write(out)
    say(f"Learned in {result.steps} steps: {parameters(out)}")
    say(f"Report: {path}")
    kernel = " --kernel K" * (job.task.name == "deblur")
    use = f"bilevel {job.task.name} IN{kernel} -o OUT --model {out}"
    say(f"Next: bilevel evaluate {out} --images DIR, or {use}")


def _job(name: str, given: dict[str, Any], before: Path | None) -> Job:
    """What to learn from: as the options say, or as the run that is resumed began."""
    from bilevel.tasks import data, runs

    given = {option: value for option, value in given.items() if value is not None}
    if "noise" in given:
        given["noise"] = str(data.Noise.parse(given["noise"]))
    if given.get("images", "skimage") != "skimage":
        given["images"] = str(Path(given["images"]).resolve())
    if before is None:
        if "images" not in given:
            raise ValueError("No images. Name a folder of clean images with --images.")
        return runs.Job.of(name, given)
    job = runs.Job.of_run(before)
    if job.task.name != name:
        raise ValueError(
            f"The run in {before} is of the task {job.task.name!r}, not of {name!r}. Resume it "
            f"with bilevel learn {job.task.name}."
        )
    check_unchanged(before, given, job.options)
    return job


def check_unchanged(run: Path, given: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """That a run is resumed with the options that it began with; None: not given."""
    for option, value in given.items():
        if value is not None and value != before[option]:
            raise ValueError(
                f"The run in {run} began with --{option} {before[option]}, got {value}. Leave the "
                "option out, or begin a new run in another folder."
            )


@contextmanager
def how_to_resume(run: Path, task: str) -> Iterator[None]:
    from bilevel.learning import Interrupted
    from bilevel.learning.shards import is_echo

    try:
        yield
    except Interrupted as stop:
        if is_echo(stop):
            raise
        command = f"bilevel learn {task} --out {shlex.quote(str(run))} --resume"
        raise Interrupted(f"{stop} Type: {command}") from stop
