"""Docstrings are plain text with formulas, read as such in the source: here they become safe reST.

Paragraphs with aligned columns are shown as they stand; `name` becomes literal; the comment behind
a dataclass's field becomes that field's documentation.
"""

import dataclasses
import inspect
import io
import re
import textwrap
import tokenize

REFERENCE = re.compile(r"\[\d+\] ")


def escape(line: str) -> str:
    """Literals kept, what reST would read as markup escaped."""
    pieces = re.split(r"(`[^`]+`)", line)
    return "".join(
        f"`{p}`" if p.startswith("`") else re.sub(r"([*|_\\])", r"\\\1", p) for p in pieces
    )


def paragraph(lines: list[str]) -> list[str]:
    if lines[0].lstrip().startswith(">>>"):
        return lines
    aligned = any(re.search(r"\S {3,}\S", line) for line in lines)
    if REFERENCE.match(lines[0]):
        return ["| " + escape(line) for line in _references(lines)]
    if aligned or any(line.startswith("    ") for line in lines):
        return [".. code-block:: text", "", *("    " + line for line in lines)]
    return [escape(line) for line in lines]


def _references(lines: list[str]) -> list[str]:
    """One line a reference, however the source wraps them."""
    return [part for part in re.split(r" (?=\[\d+\] )", " ".join(line.strip() for line in lines))]


def plain(lines: list[str]) -> list[str]:
    out, current = [], []
    for line in [*lines, ""]:
        begins = REFERENCE.match(line) and not (current and REFERENCE.match(current[0]))
        if current and (begins or not line.strip()):
            out += [*paragraph(current), ""]
            current = []
        if line.strip():
            current.append(line)
    return out


def comments(cls: type) -> dict[str, str]:
    """field name -> the comment behind it (and on the lines just below)."""
    source = textwrap.dedent(inspect.getsource(cls))
    names, found, name = {f.name for f in dataclasses.fields(cls)}, {}, None
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.start[1] == 4:
            name = token.string if token.string in names else None
        elif token.type == tokenize.COMMENT and name and token.start[1] > 4:
            text = token.string.lstrip("# ")
            found[name] = f"{found[name]} {text}" if name in found else text
    return found


def process(app, what: str, name: str, obj, options, lines: list[str]) -> None:
    lines[:] = plain(lines)
    if what == "class" and dataclasses.is_dataclass(obj):
        documented = {}
        for base in reversed(inspect.getmro(obj)):
            if dataclasses.is_dataclass(base) and base.__module__.startswith("bilevel"):
                documented |= comments(base)
        shown = [f.name for f in dataclasses.fields(obj) if f.name in documented]
        for field in shown:
            lines += [f":param {field}: {escape(documented[field])}"]
        lines += [""]


def setup(app) -> dict:
    app.connect("autodoc-process-docstring", process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
