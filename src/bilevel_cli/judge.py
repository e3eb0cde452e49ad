"""bilevel evaluate, bilevel info, bilevel demo."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import speech
from .app import Force, app, command, parameters, seed_option
from .console import progress, say
from .learn import how_to_resume

if TYPE_CHECKING:
    from bilevel.tasks.evaluation import Row

Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
Seed = Annotated[int, seed_option("Of the crops and the noise.")]


@command(app, "evaluate", "bilevel evaluate runs/tv --images photos/test --noise 15,25,50")
def evaluate(
    run: Run,
    images: Annotated[
        str | None,
        typer.Option(help="A folder of clean images, or 'skimage'.", show_default=False),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(help="Of a dequantiser: a folder of clean WAV files.", show_default=False),
    ] = None,
    noise: Annotated[
        str | None,
        typer.Option(help="Levels with commas between.  \\[default: those it learned]"),
    ] = None,
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="Of a run that deblurs.  \\[default: those it learned]"),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Judge a learned model on clean images to which noise is added, beside other methods.

    A model that deblurs gets them blurred, by each kernel in turn; a dequantiser gets --audio,
    sound that is quantised.

    Prints PSNR and SSIM, or mean squared errors, and puts them with pictures and a new report.html
    into the run folder. The images should not be those it learned from.
    """
    from bilevel import learning
    from bilevel.reports import restoration
    from bilevel.tasks import data, dequantize, evaluation, grid, runs, sweep
    from bilevel.tasks.deblur import Deblur

    if learning.read_config(run).get("task") == dequantize.NAME:
        return speech.evaluate(run, audio, force)
    if images is None or audio is not None:
        raise ValueError(
            f"{run} is judged on images, not on --audio: name a folder of clean ones, or "
            "'skimage', with --images."
        )
    evaluation.check_free(run, force)
    model, _ = runs.load(run)
    job = runs.Job.of_run(run)
    if kernel and not isinstance(job.task, Deblur):
        raise ValueError(f"{run} is a {job.task.maker}: it takes no --kernel. Leave it out.")
    task = Deblur(tuple(kernel)) if kernel else job.task
    levels = data.parse_levels(noise) if noise else job.levels
    pictures = data.photographs(images, "test")
    count = len(levels) * (grid.GRID_SOLVES + len(pictures)) + len(sweep.FACTORS)
    with progress(count, "evaluating") as tick:
        grids = grid.grids_of(job, levels, tick)
        models = {evaluation.LEARNED[job.model]: model}
        result = evaluation.evaluate(
            models, pictures, levels, task, grids=grids, seed=seed, tick=tick
        )
        middle = levels[len(levels) // 2]
        moved = sweep.sweep(task, model, sweep.worth_showing(task, pictures), middle, tick)
    evaluation.save(result, run, force)
    sweep.save(moved, run)
    say(_table(result.rows))
    say(f"Report: {restoration.write(run)}")


@command(app, "info", "bilevel info runs/tv")
def info(run: Run) -> None:
    """Tell what a run folder holds: its job, parameters, last step and evaluation."""
    from bilevel import learning
    from bilevel.tasks import dequantize, evaluation, hearing, runs

    if learning.read_config(run).get("task") == dequantize.NAME:
        say("\n".join(hearing.described(run)))
        return
    _, config = runs.load(run)
    job = runs.Job.of_run(run)
    made = f"a {job.task.maker}, model {job.model!r}, learned with bilevel {config.get('bilevel')}"
    say(f"{run}: {made}")
    say(f"  learned from  {job.crops} crops of {job.crop} x {job.crop} from {job.images}")
    for name, values in job.task.config().items():
        say(f"  {name:<12}  {', '.join(values)}")
    say(f"  noise         {job.noise} of 255, seed {job.seed}")
    say(f"  parameters    {parameters(run)}")
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
    from bilevel.tasks import demo, runs

    run = demo.free_folder() if out is None else out
    for folder, job in demo.jobs(run).items():
        say(f"Learning a TV denoiser for noise {job.noise} from {job.crops} crops of photographs")
        with how_to_resume(folder, job.task.name):
            runs.learn(job, folder)
        say(f"  {parameters(folder)}")
    say("Judging it on photographs that it has not seen")
    with progress(demo.TICKS, "evaluating") as tick:
        rows = demo.judge(run, tick)
    say(_table(rows))
    say(f"Report: {run / 'report.html'}")
    say(f"Use it: bilevel denoise IN -o OUT --model {run}")


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
