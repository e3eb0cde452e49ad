"""`.. commands::`, every command of `bilevel` with its options, asked of the program."""

import re
from collections.abc import Iterator

import typer
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from bilevel_cli import app


def leaves(command, name: str) -> Iterator[tuple[str, object]]:
    children = getattr(command, "commands", {})
    if not children:
        yield name, command
    for word, child in children.items():
        yield from leaves(child, f"{name} {word}")


def signature(parameter) -> str:
    """--seed, or -o, --output, or IN..."""
    if parameter.param_type_name == "argument":
        return parameter.metavar or parameter.name.upper()
    return ", ".join(parameter.opts)


def described(parameter) -> str:
    text = parameter.help or ""
    default = parameter.default
    shown = isinstance(default, int | float | str) and not isinstance(default, bool)
    if shown and "default" not in text:
        text += f"  [default: {default}]"
    return text + ("  [required]" if parameter.required else "")


def marked(text: str) -> str:
    """Options as literals, so that two hyphens stay two; the bars of a norm are no markup."""
    return re.sub(r"(?<![\w-])(--?[a-z][\w-]*)", r"``\1``", text.replace("|", "\\|"))


def lines(name: str, command) -> Iterator[str]:
    yield from [name, "-" * len(name), ""]
    yield from [*marked(command.help).splitlines(), ""]
    example = re.sub(r"\[/?bold\]", "", command.epilog or "").removeprefix("Example: ")
    yield from [".. code-block:: console", "", f"   $ {example}", ""]
    for parameter in command.params:
        yield from [f"``{signature(parameter)}``", f"    {marked(described(parameter))}", ""]


class Commands(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        found = []
        for name, command in leaves(typer.main.get_command(app), "bilevel"):
            found += lines(name, command)
        return self.parse_text_to_nodes("\n".join(found), allow_section_headings=True)


def setup(app) -> dict:
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
