"""The application, and what every command shares."""

from __future__ import annotations

import functools
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import messages

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

Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]


def seed_option(help: str) -> Any:
    """One that every random generator of the package takes."""
    return typer.Option(help=help, min=0, max=2**63 - 1)


def main() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
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


def parameters(run: Path) -> str:
    """What a run has learned, in words."""
    from bilevel.tasks import runs

    return runs.describe(runs.load(run)[0])
