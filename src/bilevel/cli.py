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
    from bilevel.tasks.files import Restorer
    from bilevel.tasks.task import Task

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
ModelName = Annotated[str | None, typer.Option(help="Only 'tv' so far.  \\[default: tv]")]
Steps = Annotated[int, typer.Option(help="At most so many; it ends when it is there.")]
Crop = Annotated[int | None, typer.Option(help="Side of a crop.  \\[default: 64]")]
Crops = Annotated[int | None, typer.Option(help="How many crops.  \\[default: 48]")]
LearnSeed = Annotated[int | None, typer.Option(help="Of crops and noise.  \\[default: 0]")]
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
    resume: Resume = False,
) -> None:
    """Learn a denoiser from the clean images of a folder.

    With one noise level it learns the weight of total variation; with a range, the weight as a
    function of the noise level.
    """
    from bilevel.tasks.denoise import Denoise

    given = dict(images=images, noise=noise, model=model, crop=crop, crops=crops, seed=seed)
    _learn(Denoise, given, out, steps, resume)


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
    from bilevel.tasks.deblur import Deblur

    given = dict(images=images, noise=noise, model=model, crop=crop, crops=crops, seed=seed)
    if kernel:
        given["task"] = Deblur(tuple(kernels.resolve(text) for text in kernel))
    elif not resume:
        raise ValueError("No kernel. Name one with --kernel: a file, or gaussian:2.")
    _learn(Deblur, given, out, steps, resume)


def _learn(task: type[Task], given: dict[str, Any], out: Path, steps: int, resume: bool) -> None:
    from bilevel import report
    from bilevel.tasks import data, runs, sweep

    given = {name: value for name, value in given.items() if value is not None}
    if "noise" in given:
        given["noise"] = str(data.Noise.parse(given["noise"]))
    if given.get("images", "skimage") != "skimage":
        given["images"] = str(Path(given["images"]).resolve())
    if resume:
        job = runs.Job.of_run(out)
        if job.task.name != task.name:
            raise ValueError(
                f"The run in {out} is of the task {job.task.name!r}. Type: bilevel learn "
                f"{job.task.name} --out {out} --resume"
            )
        for name, value in given.items():
            if value != getattr(job, name):
                raise ValueError(
                    f"The run in {out} began with --{name} {getattr(job, name)}, got {value}. "
                    "Leave the option out, or begin a new run in another folder."
                )
    elif "images" not in given:
        raise ValueError("No images. Name a folder of clean images with --images.")
    else:
        job = runs.Job(**{"task": task(), **given} if "task" not in given else given)
    with _how_to_resume(out, job.task.name):
        result = runs.learn(job, out, steps=steps, resume=resume)
    with progress(len(sweep.FACTORS), "weights") as tick:
        picture = sweep.largest(data.photographs(job.images))
        level = job.levels[len(job.levels) // 2]
        sweep.save(sweep.sweep(job.task, result.model, picture, level, tick), out)
    path = report.write(out)
    say(f"Learned in {result.steps} steps: {_parameters(out)}")
    say(f"Report: {path}")
    kernel = " --kernel K" * (job.task.name == "deblur")
    use = f"bilevel {job.task.name} IN{kernel} -o OUT --model {out}"
    say(f"Next: bilevel evaluate {out} --images DIR, or {use}")


# --------------------------------------------------------------------------------- files to files

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


@command(app, "denoise", "bilevel denoise noisy.png -o clean.png --model runs/tv")
def denoise_files(
    inputs: Inputs,
    output: Output = None,
    model: Model = None,
    weight: Weight = None,
    noise: Noise = None,
    force: Force = False,
) -> None:
    """Denoise images: gray or colour, PNG, TIFF, JPEG or NPY, 8 or 16 bits or floats.

    Give a learned --model or a --weight. Results have the kind of the images; without -o they lie
    beside them as NAME_denoised. Files that cannot be read are skipped with a warning.
    """
    from bilevel.tasks.denoise import Denoise
    from bilevel.tasks.files import Restoration

    restorer = Restoration.of(Denoise(), model, weight, noise)
    _restore_files(restorer, inputs, output, force, "denoised")


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
    force: Force = False,
) -> None:
    """Deblur images whose blur kernel is known, with total variation. Files as bilevel denoise.

    Give a learned --model or a --weight, about 0.0005 to 0.01: the less noise, the smaller. Nothing
    is assumed of what lies beyond the edges. Without -o results are NAME_deblurred.
    """
    from bilevel.tasks import kernels
    from bilevel.tasks.deblur import Deblur
    from bilevel.tasks.files import Restoration

    kernels.read_one(kernel)
    restorer = Restoration.of(Deblur((kernel,)), model, weight, noise)
    _restore_files(restorer, inputs, output, force, "deblurred")


@command(app, "inpaint", "bilevel inpaint scratched.png --mask scratches.png -o whole.png")
def inpaint_files(
    inputs: Inputs,
    mask: Annotated[
        Path,
        typer.Option(
            help="An image of the same size: white is missing, black is known.", show_default=False
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
    _restore_files(Inpainter.of(mask, weight), inputs, output, force, "inpainted")


def _restore_files(
    restorer: Restorer, inputs: list[Path], output: Path | None, force: bool, done: str
) -> None:
    from bilevel.tasks import files

    pairs, count = files.plan(inputs, output, force, done), 0
    with progress(len(pairs), done) as tick:
        for source, target in pairs:
            line = files.restore(source, target, restorer, force, alone=len(pairs) == 1)
            count += line is not None
            if line is not None:
                say(line)
            tick()
    if not count:
        raise ValueError(f"None of the {len(pairs)} images could be {done}: see the warnings.")


# ------------------------------------------------------------------------------- judge and tell


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
    kernel: Annotated[
        list[str] | None,
        typer.Option(help="Of a run that deblurs.  \\[default: those it learned]"),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Judge a learned model on clean images to which noise is added, beside other methods.

    A model that deblurs gets them blurred, by each kernel in turn.

    Prints PSNR and SSIM, and puts the table, pictures and a new report.html into the run folder.
    The images should not be those it learned from.
    """
    from bilevel import report
    from bilevel.tasks import data, evaluation, grid, runs, sweep
    from bilevel.tasks.deblur import Deblur

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
        models = {evaluation.LEARNED: model}
        result = evaluation.evaluate(
            models, pictures, levels, task, grids=grids, seed=seed, tick=tick
        )
        middle = levels[len(levels) // 2]
        moved = sweep.sweep(task, model, sweep.largest(pictures), middle, tick)
    evaluation.save(result, run, force)
    sweep.save(moved, run)
    say(_table(result.rows))
    say(f"Report: {report.write(run)}")


@command(app, "info", "bilevel info runs/tv")
def info(run: Run) -> None:
    """Tell what a run folder holds: its job, parameters, last step and evaluation."""
    from bilevel import learning
    from bilevel.tasks import evaluation, runs

    _, config = runs.load(run)
    job = runs.Job.of_run(run)
    made = f"a {job.task.maker}, model {job.model!r}, learned with bilevel {config.get('bilevel')}"
    say(f"{run}: {made}")
    say(f"  learned from  {job.crops} crops of {job.crop} x {job.crop} from {job.images}")
    for name, values in job.task.config().items():
        say(f"  {name:<12}  {', '.join(values)}")
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
    from bilevel.tasks import demo, runs

    run = demo.free_folder() if out is None else out
    for folder, job in demo.jobs(run).items():
        say(f"Learning a TV denoiser for noise {job.noise} from {job.crops} crops of photographs")
        with _how_to_resume(folder, job.task.name):
            runs.learn(job, folder)
        say(f"  {_parameters(folder)}")
    say("Judging it on photographs that it has not seen")
    with progress(demo.TICKS, "evaluating") as tick:
        rows = demo.judge(run, tick)
    say(_table(rows))
    say(f"Report: {run / 'report.html'}")
    say(f"Use it: bilevel denoise IN -o OUT --model {run}")


# ---------------------------------------------------------------------------------------- show


@contextmanager
def _how_to_resume(run: Path, task: str) -> Iterator[None]:
    from bilevel.learning import Interrupted

    try:
        yield
    except Interrupted as stop:
        command = f"bilevel learn {task} --out {shlex.quote(str(run))} --resume"
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
    from bilevel.tasks import runs

    return runs.describe(runs.load(run)[0])
