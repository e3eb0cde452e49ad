"""Tables that cannot fall out of step: stored measurements, and the defaults asked of the library.

    .. measured:: gradient-errors | estimate-ratio | strategy-bias | adaptive-inexact | choice |
                  theorems | certificates | composed-adjoints | machine <file>

A stored result that lacks what a table needs fails the build.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

import bilevel as bl
from bilevel.choice import default_solver, default_strategy
from bilevel.differentiation.assumptions import sentence
from bilevel.differentiation.theorems import THEOREMS

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
Table = tuple[list[str], list[list[str]]]  # header, rows; cells are reST


def stored(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e+")


def _worst(solves: list[dict]) -> list[str]:
    """Errors of x and of the gradient, and what the certificate estimated, each the largest."""
    gradient = max(max(s["gradient"].values()) for s in solves)
    estimate = max(s["certificate"]["estimate"] for s in solves)
    return [_number(max(s["x"] for s in solves)), _number(gradient), _number(estimate)]


ERRORS = ("x", "gradient", "estimate")


def gradient_errors() -> Table:
    cases: dict[tuple[str, str], list[dict]] = {}
    for row in stored("gradient_errors")["rows"]:
        cases.setdefault((row["problem"], row["case"]), []).append(row)
    columns = [f"{tol}: {what}" for tol in ("default", "1e-14") for what in ERRORS]
    header = ["problem", "gradient in", *columns]
    rows = [
        [f"{problem}, {case}".replace("_", " "), ", ".join(same[0]["default"]["gradient"])]
        + _worst([row["default"] for row in same])
        + _worst([row["tight"] for row in same])
        for (problem, case), same in cases.items()
    ]
    return header, rows


def estimate_ratio() -> str:
    """How much larger than its estimate an error was, at the default tolerance."""
    rows = stored("gradient_errors")["rows"]
    worst, median = max(rows, key=_ratio), statistics.median(map(_ratio, rows))
    problem = f"{worst['problem']}, {worst['case']}".replace("_", " ")
    return (
        f"At the default tolerance the error was at worst {_ratio(worst):.0f} times the estimate "
        f"({problem}), and {median:.1f} times it in the median."
    )


def _ratio(row: dict) -> float:
    return max(row["default"]["gradient"].values()) / row["default"]["certificate"]["estimate"]


def strategy_bias() -> Table:
    rows = stored("strategy_bias")["rows"]
    problems = list(next(iter(rows.values())))
    cells = [
        [f"``{name}``" if "(" in name else name]
        + [f"{_number(row[p]['error'])} ({row[p]['cosine']:.3f})" for p in problems]
        for name, row in rows.items()
    ]
    return ["strategy", *(p.replace("_", " ") for p in problems)], cells


def adaptive_inexact() -> Table:
    rows = stored("adaptive_inexact")["rows"]
    counts = ["lower-level steps", "adjoint products", "lower-level steps to 0.02 dB"]
    return ["problem", "method", "PSNR", "below the best", *counts], [
        [r["problem"], r["method"], f"{r['PSNR']:.3f}", f"{r['below the best, dB']:.3f} dB"]
        + [str(r[count]) for count in counts]
        for r in rows
    ]


ENERGIES = [
    ("a strongly convex quadratic", "bl.LeastSquares(b) @ A + 0.1 * bl.LeastSquares()"),
    ("nothing but smooth terms", "bl.Logistic(labels) @ A + 0.1 * bl.LeastSquares()"),
    ("smooth, of unknown curvature", "bl.LeastSquares(y) + bl.Potential(network)"),
    ("smooth + one term with a prox", "bl.LeastSquares(b) @ A + 0.1 * bl.L1()"),
    ("", "bl.LeastSquares(b) @ A + bl.NonNegative()"),
    ("one prox of the data", "bl.LeastSquares(y) + 0.1 * bl.TotalVariation(dims=1)"),
    ("a small quadratic program", "bl.LeastSquares(b) @ A + bl.Simplex()"),
    ("", "bl.LeastSquares(y) + bl.Box(-1.0, 1.0) @ K"),
    ("... of unknown curvature", "bl.Potential(network) + bl.Box(0.0, 1.0)"),
    ("h(Kx) + a strongly convex prox", "bl.LeastSquares(y) + 0.1 * bl.L1() @ bl.Gradient(1)"),
    ("h(Kx) + a smooth term", "bl.LeastSquares(b) @ A + 0.1 * bl.L1() @ bl.Gradient(1)"),
    ("h(Kx) + a prox", "0.1 * bl.L1() @ K + bl.Box(y - 0.1, y + 0.1)"),
]  # fmt: skip


def _name(value: object) -> str:
    return f"``{type(value).__name__}``"


def choice() -> Table:
    torch.manual_seed(0)
    names = {
        "bl": bl, "b": torch.randn(1, 8), "y": torch.randn(1, 6),
        "labels": torch.randn(1, 8).sign(),
        "A": bl.Matrix(torch.randn(8, 6)), "K": bl.Matrix(torch.randn(8, 6)),
        "network": lambda x: x.pow(4).sum(1),
    }  # fmt: skip
    rows = []
    for structure, code in ENERGIES:
        problem = eval(code, names)
        x0 = torch.zeros(1, 6)
        solver = default_solver(problem, x0)
        tight, loose = (_name(solver.acceleration(problem, x0, tol)) for tol in (1e-8, 1e-4))
        rule = tight if tight == loose else f"{tight} at tol 1e-8, {loose} at 1e-4"
        gap = "gap" if problem.has_gap else "residual"
        strategy = _name(default_strategy(problem, solver, x0))
        energy = f"``{code.replace('bl.', '')}``"
        rows.append([structure, energy, _name(solver), rule, strategy, gap])
    return ["structure", "for example", "solver", "acceleration", "strategy", "stops by"], rows


def certificates() -> Table:
    columns = {
        "class": "problems", "problems": "number", "bounds broken": "bounds broken",
        "median bound / error": "median bound / error",
        "estimate with probe": "estimate with probe, within 10x",
        "estimate without probe": "without, within 10x",
        "degenerate, told": "degenerate, told",
    }  # fmt: skip
    rows = stored("certificates")["rows"]

    def cell(value: object) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value).replace("_", " ")

    return list(columns.values()), [[cell(row[key]) for key in columns] for row in rows]


def composed_adjoints() -> Table:
    who = ("FixedPoint", "PartlySmooth")
    header = ["problem", *(f"``{w}``: {what}" for w in who for what in ("residual", "ms"))]
    rows = []
    for row in stored("composed_adjoints")["rows"]:
        cells = [(_number(row[f"{w}: residual"]), f"{row[f'{w}: ms']:.0f}") for w in who]
        rows.append([row["problem"], *(text for pair in cells for text in pair)])
        rows[-1].append(_number(row["apart"]))
    return [*header, "gradients apart"], rows


def theorems() -> Table:
    rows = [
        [t.name, t.says.replace("*", r"\*"), ", ".join(f"``{s.__name__}``" for s in t.strategies)]
        + ["; ".join(sentence(question) for question in t.assumes), t.memory, t.source]
        for t in THEOREMS
    ]
    return ["theorem", "says", "strategies", "assumes", "memory", "source"], rows


TABLES: dict[str, Callable[[], Table]] = {
    "gradient-errors": gradient_errors,
    "strategy-bias": strategy_bias,
    "adaptive-inexact": adaptive_inexact,
    "choice": choice,
    "theorems": theorems,
    "certificates": certificates,
    "composed-adjoints": composed_adjoints,
}


class Measured(SphinxDirective):
    required_arguments = 1
    optional_arguments = 1
    option_spec = {"class": directives.class_option}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name == "estimate-ratio":
            return self.parse_text_to_nodes(estimate_ratio())
        if name == "machine":
            facts = stored(self.arguments[1])["machine"]
            text = ", ".join(f"{key} {value}" for key, value in facts.items())
            return self.parse_text_to_nodes(f"Measured on: {text}.")
        header, rows = TABLES[name]()
        lines = [".. list-table::", "   :header-rows: 1", f"   :class: measured {name}", ""]
        for row in [header, *rows]:
            lines += [("   * - " if i == 0 else "     - ") + cell for i, cell in enumerate(row)]
        content = StringList([*lines, ""], source=f"measured:{name}")
        node = nodes.Element()
        self.state.nested_parse(content, 0, node)
        return node.children


def setup(app) -> dict:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
