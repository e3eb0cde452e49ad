"""bilevel dequantize, bilevel learn dequantize."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .app import Force, app, command, learn_app
from .console import progress, say
from .learn import EVERY, Out, Resume, check_unchanged, how_to_resume

if TYPE_CHECKING:
    from bilevel.tasks.audio import Audio


@command(app, "dequantize", "bilevel dequantize coarse.wav -o fine.wav")
def dequantize_file(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A WAV file.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help="A WAV file.", show_default=False)],
    bits: Annotated[int, typer.Option(help="Of the quantiser that made IN.")] = 4,
    model: Annotated[
        Path | None,
        typer.Option(help="A run folder with a learned model.  \\[default: one for speech]"),
    ] = None,
    force: Force = False,
) -> None:
    """Refine sound that was quantised to a few bits, of any length and sampling rate.

    Every sample stays in the cell that it was rounded to. The quantiser is mid-rise: the levels are
    (k + 1/2) / 2^(bits - 1).
    """
    from bilevel.tasks import audio, dequantize, files

    audio.check_writable(output, force)
    files.check_no_input(output, source)
    sound = audio.read(source)
    learned, config = dequantize.load(model)
    dequantize.check_bits(model, config, bits)
    audio.write(output, dequantize.restore(learned, sound, bits), force)
    say(output)


@command(learn_app, "dequantize", "bilevel learn dequantize --audio speech --out runs/fine")
def learn_dequantize(
    out: Out,
    audio: Annotated[
        Path | None, typer.Option(help="A folder of clean WAV files.", show_default=False)
    ] = None,
    bits: Annotated[int | None, typer.Option(help="To quantise to.  \\[default: 4]")] = None,
    steps: Annotated[int, typer.Option(help="Of learning, 32 frames each.")] = 3000,
    resume: Resume = False,
) -> None:
    """Learn to dequantise from clean sound, which it quantises.

    It learns the analysis operator K of |K u|_1 on frames of 20 ms. Every fifth file is left out,
    for the report.
    """
    from bilevel.tasks import dequantize

    if resume:
        before = dequantize.read_config(out)["data"]
        check_unchanged(out, {"audio": audio and str(audio.resolve()), "bits": bits}, before)
        folder, bits = Path(before["audio"]), int(before["bits"])
    elif audio is None:
        raise ValueError("No sound. Name a folder of clean WAV files with --audio.")
    else:
        folder, bits = audio.resolve(), 4 if bits is None else bits
    dequantize.radius(bits)
    sounds = _sounds(folder)
    if len(sounds) < 2:
        raise ValueError(f"{folder} holds {len(sounds)} WAV files: at least 2 are needed.")
    held = sounds[::EVERY]
    with how_to_resume(out, dequantize.NAME):
        result = dequantize.learn(
            [sound for k, sound in enumerate(sounds) if k % EVERY],
            bits,
            out,
            data={"audio": str(folder)},
            steps=steps,
            resume=resume,
        )
    say(f"Learned in {result.steps} steps.")
    _listen(out, held, bits)
    say(f"Next: bilevel dequantize IN.wav -o OUT.wav --bits {bits} --model {out}")


def evaluate(run: Path, folder: Path | None, force: bool) -> None:
    """`bilevel evaluate` of a dequantiser, for the bits that it has learned."""
    from bilevel.tasks import dequantize, evaluation

    if folder is None:
        raise ValueError(f"{run} is a dequantiser: name a folder of clean WAV files with --audio.")
    _, config = dequantize.load(run)
    evaluation.check_free(run, force)
    sounds = _sounds(folder)
    if not sounds:
        raise ValueError(f"{folder} holds no WAV files.")
    _listen(run, sounds, int(config["data"]["bits"]))


def _sounds(folder: Path) -> list[Audio]:
    from bilevel.tasks import audio

    found = (path for path in folder.rglob("*") if path.suffix.lower() == ".wav")
    return [audio.read(path) for path in sorted(found)]


def _listen(run: Path, sounds: list[Audio], bits: int) -> None:
    """Judges the run on these sounds, and writes its report."""
    from bilevel.reports import speech
    from bilevel.tasks import dequantize, hearing

    with progress(len(sounds), "listening") as tick:
        model, _ = dequantize.load(run)
        rows = hearing.judge(model, sounds, bits, run, tick)
    say(f"Mean squared error on {len(sounds)} sounds:")
    for line in hearing.described(run)[-len(rows) :]:
        say(line)
    say(f"Report: {speech.write(run)}")
