"""The command `bilevel`. Heavy imports are inside the commands, so that --help answers at once."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilevel.console import messages, progress, say

if TYPE_CHECKING:
    from bilevel.tasks.evaluation import Row

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    help="Learn the parameters of variational models from data, and use them.",
    epilog="Start with: [bold]bilevel demo[/bold]",
    pretty_exceptions_enable=False,
)
learn_app = typer.Typer(no_args_is_help=True, help="Learn a model; leaves a run folder.")
app.add_typer(learn_app, name="learn", epilog="See: [bold]bilevel learn denoise --help[/bold]")

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
Seed = Annotated[int, typer.Option(help="Of the crops and the noise.")]


def main() -> None:
    app(prog_name="bilevel")


def command(group: typer.Typer, name: str, example: str) -> Callable[[Callable], Callable]:
    """A command whose --help shows an example, and whose errors are a message and exit code 1."""

    def register(function: Callable) -> Callable:
        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> None:
            with messages():
                function(*args, **kwargs)

        return group.command(name, epilog=f"Example: [bold]{example}[/bold]")(guarded)

    return register


# ------------------------------------------------------------------------------------ commands


@command(learn_app, "denoise", "bilevel learn denoise --images photos --noise 5:50 --out runs/tv")
def learn_denoise(
    out: Annotated[Path, typer.Option(help="The run folder to make.", show_default=False)],
    images: Annotated[
        str | None,
        typer.Option(
            help="A folder of clean images, or 'skimage' for the photographs inside scikit-image.",
            show_default=False,
        ),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Standard deviation of 255 (25), or a range (5:50).  \\[default: 25]"),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only 'tv' so far.  \\[default: tv]")] = None,
    steps: Annotated[int, typer.Option(help="At most so many; it ends when it is there.")] = 30,
    crop: Annotated[int | None, typer.Option(help="Side of a crop.  \\[default: 64]")] = None,
    crops: Annotated[int | None, typer.Option(help="How many crops.  \\[default: 48]")] = None,
    seed: Annotated[int | None, typer.Option(help="Of crops and noise.  \\[default: 0]")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; it knows its options.")
    ] = False,
) -> None:
    """Learn a denoiser from the clean images of a folder.

    With one noise level it learns the weight of total variation; with a range, the weight as a
    function of the noise level.
    """
    from bilevel import report
    from bilevel.learning.processes import is_first
    from bilevel.tasks import data, denoise

    given: dict[str, Any] = dict(noise=noise, model=model, crop=crop, crops=crops, seed=seed)
    given = {name: value for name, value in given.items() if value is not None}
    if noise is not None:
        given["noise"] = str(data.Noise.parse(noise))
    if images is not None:
        given["images"] = images if images == "skimage" else str(Path(images).resolve())
    if resume:
        job = denoise.Job.of_run(out)
        for name, value in given.items():
            if value != getattr(job, name):
                raise ValueError(
                    f"The run in {out} began with --{name} {getattr(job, name)}, got {value}. "
                    "Leave the option out, or begin a new run in another folder."
                )
    elif images is None:
        raise ValueError("No images. Name a folder of clean images with --images.")
    else:
        job = denoise.Job(**given)
    with _how_to_resume(out):
        result = denoise.learn(job, out, steps=steps, resume=resume)
    if not is_first():
        return
    path = report.write(out)
    say(f"Learned in {result.steps} steps: {_parameters(out)}")
    say(f"Report: {path}")
    say(f"Next: bilevel evaluate {out} --images DIR, or bilevel denoise IN -o OUT --model {out}")


@command(app, "denoise", "bilevel denoise noisy.png -o clean.png --model runs/tv")
def denoise_files(
    inputs: Annotated[
        list[Path],
        typer.Argument(metavar="IN...", help="Images, or folders of them.", show_default=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="A file; a folder where there are several images."),
    ] = None,
    model: Annotated[Path | None, typer.Option(help="A run folder with a learned model.")] = None,
    weight: Annotated[
        float | None, typer.Option(help="Without a model: the weight of total variation.")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Standard deviation of the noise, of 255.  \\[default: estimated]"),
    ] = None,
    force: Force = False,
) -> None:
    """Denoise images: gray or colour, PNG, TIFF, JPEG or NPY, 8 or 16 bits or floats.

    Give a learned --model or a --weight. Results have the kind of the images; without -o they lie
    beside them as NAME_denoised. Files that cannot be read are skipped with a warning.
    """
    from bilevel.tasks import files

    if (model is None) == (weight is None):
        raise ValueError("Give one of --model RUN and --weight NUMBER.")
    denoiser = files.Denoiser.of(model, weight, noise)
    pairs = files.plan(inputs, output, force)
    done = 0
    with progress(len(pairs), "denoising") as tick:
        for source, target in pairs:
            line = files.denoise(source, target, denoiser, force, alone=len(pairs) == 1)
            done += line is not None
            if line is not None:
                say(line)
            tick()
    if not done:
        raise ValueError(f"None of the {len(pairs)} images could be denoised: see the warnings.")


@command(app, "evaluate", "bilevel evaluate runs/tv --images photos/test --noise 15,25,50")
def evaluate(
    run: Run,
    images: Annotated[
        str,
        typer.Option(help="A folder of clean images, or 'skimage'.", show_default=False),
    ],
    noise: Annotated[
        str | None,
        typer.Option(help="Levels with commas between.  \\[default: those it learned]"),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Judge a learned model on clean images to which noise is added, beside other methods.

    Prints PSNR and SSIM, and puts the table, pictures and a new report.html into the run folder.
    The images should not be those it learned from.
    """
    from bilevel import report
    from bilevel.tasks import data, denoise, evaluation

    evaluation.check_free(run, force)
    model, _ = denoise.load(run)
    job = denoise.Job.of_run(run)
    levels = data.parse_levels(noise) if noise else job.levels
    pictures = data.photographs(images, "test")
    with progress(len(levels) * (evaluation.GRID_SOLVES + len(pictures)), "evaluating") as tick:
        grids = evaluation.grids_of(job, levels, tick)
        models = {evaluation.LEARNED: model}
        result = evaluation.evaluate(models, pictures, levels, grids=grids, seed=seed, tick=tick)
    evaluation.save(result, run, force)
    say(_table(result.rows))
    say(f"Report: {report.write(run)}")


@command(app, "info", "bilevel info runs/tv")
def info(run: Run) -> None:
    """Tell what a run folder holds: its job, parameters, last step and evaluation."""
    from bilevel import learning
    from bilevel.tasks import denoise, evaluation

    _, config = denoise.load(run)
    job = denoise.Job.of_run(run)
    say(f"{run}: a denoiser, model {job.model!r}, learned with bilevel {config.get('bilevel')}")
    say(f"  learned from  {job.crops} crops of {job.crop} x {job.crop} from {job.images}")
    say(f"  noise         {job.noise} of 255, seed {job.seed}")
    say(f"  parameters    {_parameters(run)}")
    history = learning.read_metrics(run)
    if history:
        last = history[-1]
        say(f"  steps         {last['step']}, the last with loss {last['loss']:.5g}")
    rows = evaluation.read_rows(run)
    say(_table(rows) if rows else "  not evaluated yet: bilevel evaluate RUN --images DIR")


@command(app, "demo", "bilevel demo")
def demo(
    out: Annotated[
        Path | None,
        typer.Option(help="The run folder.  \\[default: runs/demo, or the next number]"),
    ] = None,
) -> None:
    """Learn a denoiser from photographs inside scikit-image, judge it on others, write a report.

    Takes one or two minutes.
    """
    from bilevel.tasks import demo, denoise

    run = demo.free_folder() if out is None else out
    for folder, job in demo.jobs(run).items():
        say(f"Learning a TV denoiser for noise {job.noise} from {job.crops} crops of photographs")
        with _how_to_resume(folder):
            denoise.learn(job, folder)
        say(f"  {_parameters(folder)}")
    say("Judging it on photographs that it has not seen")
    with progress(demo.TICKS, "evaluating") as tick:
        rows = demo.judge(run, tick)
    say(_table(rows))
    say(f"Report: {run / 'report.html'}")
    say(f"Use it: bilevel denoise IN -o OUT --model {run}")


# ---------------------------------------------------------------------------------------- show


@contextmanager
def _how_to_resume(run: Path) -> Iterator[None]:
    from bilevel.learning import Interrupted
    from bilevel.learning.shards import is_echo

    try:
        yield
    except Interrupted as stop:
        if is_echo(stop):
            raise
        command = f"bilevel learn denoise --out {shlex.quote(str(run))} --resume"
        raise Interrupted(f"{stop} Type: {command}") from stop


def _table(rows: Sequence[Row]) -> Any:
    from rich.table import Table

    from bilevel.tasks import evaluation

    means = evaluation.means(rows)
    levels = list(dict.fromkeys(row.noise for row in rows))
    count = len({row.image for row in rows})
    table = Table(title=f"PSNR in dB / SSIM, mean over {count} images", title_justify="left")
    table.add_column("method")
    for level in levels:
        table.add_column(f"noise {level:g}", justify="right")
    for method, values in means.items():
        cells = (values.get(level) for level in levels)
        table.add_row(method, *(f"{c[0]:.2f} / {c[1]:.3f}" if c else "" for c in cells))
    return table


def _parameters(run: Path) -> str:
    from bilevel.tasks import denoise

    return denoise.describe(denoise.load(run)[0])
