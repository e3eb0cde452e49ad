"""What the pages share: the page itself, tables, tiles, and the sections that end every report."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import metadata
from pathlib import Path
from string import Template
from typing import Any

from bilevel.learning import read_config, read_metrics
from bilevel.learning.checkpoint import write_bytes

from . import figures

VERSIONS = ("bilevel", "torch", "numpy", "scipy", "safetensors", "scikit-image")

CERTIFICATE = {
    "step": "the step of learning that it belongs to",
    "solver": "what solved the lower-level problems",
    "strategy": "what differentiated the solutions",
    "gap": "relative duality gap of the worst sample: how far its energy can be from the least",
    "residual": "change that one more step of the solver would make, relative, worst sample",
    "iterations": "steps of the solver, worst sample",
    "converged": "1: every sample reached its tolerance",
    "contraction": "factor by which a step near the solution shrinks the error; 1 is no progress",
    "identified": "steps for which the active set has not changed at the end, worst sample",
    "margin": "how far the active set is from changing, worst sample; 0 is a kink",
    "distance": "bound of the distance of a solution to the true one, worst sample",
    "pull": "length of the loss's derivative by the solution, worst sample",
    "loss_error": "estimate of what the error of a solution adds to the loss, largest",
    "adjoint_residual": "relative residual of the linear system behind the gradient, worst sample",
    "adjoint_iterations": "steps that the linear system took",
    "newton": "estimate of the relative distance of a solution to the true one, worst sample",
    "seen": "the share of that distance which moves the gradient, estimated",
    "inconsistency": "relative change of the gradient with another solution of that system",
    "influence": "relative change of the gradient if doubtful kinks fall on the other side",
    "drift": "relative change of the gradient if the solution were exact, to first order",
    "bound": "bound of the relative error of the gradient",
    "theorem": "what stands behind that bound, or behind the estimate",
    "estimate": "estimate, not a bound, of the relative error of the gradient",
}


def page(
    path: Path, heading: str, summary: str, sections: Iterable[tuple[str, str]]
) -> Path:  # all but the path is HTML
    """Writes a page of (title, HTML) pairs, and returns its path; those without HTML are left out.

    Complete or not at all, and it forbids the browser to load anything.
    """
    body = "".join(f"<section><h2>{title}</h2>{html}</section>" for title, html in sections if html)
    template = Path(__file__).parent / "page.html.template"
    html = Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(f"bilevel: {path.resolve().parent.name}/{path.name}"),
        heading=heading,
        summary=summary,
        body=body,
    )
    write_bytes(path, html.encode(errors="backslashreplace"))  # names that are no UTF-8
    return path


def learning_curves(run: Path, loss: str, caption: str) -> str:
    """The loss and the parameters over the steps; empty if none was made."""
    history, config = read_metrics(run), read_config(run)
    if not history:
        return ""
    steps = [row["step"] for row in history]
    lines = {"loss": (steps, [row["loss"] for row in history])}
    image = figures.curves(lines, xlabel="step", ylabel=loss)
    alt = (
        f"The loss falls from {history[0]['loss']:.4g} to {history[-1]['loss']:.4g} "
        f"in {len(history)} steps."
    )
    shown = [tile(image, alt, escape(caption, quote=False))]
    names = config.get("learn", {}).get("parameters", {})
    lines = {name: (steps, [row[name] for row in history]) for name in names if name in history[0]}
    if lines:
        ends = ", ".join(f"{name} = {ys[-1]:.5g}" for name, (_, ys) in lines.items())
        image = figures.curves(lines, xlabel="step", ylabel="parameter")
        alt = f"The parameters over the steps; at the end {ends}."
        shown.append(tile(image, alt, escape(ends)))
    return tiles(shown)


def provenance(run: Path, config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The sections that end the report of a run."""
    path, learned_with = run / "certificate.json", {}
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if "bilevel" in config:
        learned_with["learned with bilevel"] = str(config["bilevel"])
    return [
        ("How far the last gradient can be trusted", certificate_table(values)),
        ("Configuration", preformatted((run / "config.toml").read_text(encoding="utf-8"))),
        ("Versions", versions(learned_with)),
    ]


def certificate_table(values: Mapping[str, Any]) -> str:
    """Of the fields of a certificate; empty without any."""
    lines = [
        [name.replace("_", " "), _number(value), CERTIFICATE.get(name, "")]
        for name, value in values.items()
    ]
    return html_table(["", "", "what it says"], lines) if lines else ""


def versions(others: Mapping[str, str] | None = None) -> str:
    """What computed here, and what else is told of it."""
    lines = [["Python", platform.python_version()], ["system", platform.platform()]]
    for name in VERSIONS:
        try:
            lines.append([name, metadata.version(name)])
        except metadata.PackageNotFoundError:  # run from a source tree, or without an extra
            lines.append([name, "not installed"])
    return html_table(["", ""], [*lines, *map(list, (others or {}).items())])


def tile(uri: str, alt: str, caption: str, *below: tuple[str, str]) -> str:
    """A picture, others (uri, alt) below it, and a caption, which is HTML."""
    pictures = "".join(f'<img src="{u}" alt="{escape(a)}">' for u, a in ((uri, alt), *below))
    return f"<figure>{pictures}<figcaption>{caption}</figcaption></figure>"


def tiles(figures: Iterable[str], kind: str = "wide") -> str:
    """Side by side: as many as fit ("wide"), "three" or, with kind "", four in a row."""
    return f'<div class="{f"tiles {kind}".strip()}">{"".join(figures)}</div>'


def note(html: str) -> str:
    return f'<p class="note">{html}</p>'


def html_table(head: Sequence[str], lines: Iterable[Sequence[str]], escaped: bool = False) -> str:
    safe = str if escaped else escape
    top = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{safe(text)}</td>" for text in line) + "</tr>" for line in lines
    )
    header = f"<thead><tr>{top}</tr></thead>" if any(head) else ""
    return f'<div class="scroll"><table>{header}<tbody>{body}</tbody></table></div>'


def preformatted(text: str) -> str:
    return f'<pre class="scroll">{escape(text)}</pre>'


def _number(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.0f}" if value == round(value) and abs(value) < 1e6 else f"{value:.2e}"
    return str(value)
