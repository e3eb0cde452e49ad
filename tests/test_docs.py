"""The docs say what is: every public name, every message, every example."""

import ast
import re
from itertools import product
from pathlib import Path

import pytest

import bilevel as bl
import registry
import test_operators
import test_terms
from bilevel import layers, learning, testing

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def listed(text: str) -> dict[str, set[str]]:
    """module -> the names below its `currentmodule` in autosummary lists."""
    module, names = "", {}
    for line in text.splitlines():
        if match := re.match(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif match := re.fullmatch(r"   (\w+)", line):
            names.setdefault(module, set()).add(match[1])
    return names


@pytest.mark.parametrize("room", [bl, layers, learning, testing], ids=lambda m: m.__name__)
def test_every_public_name_is_in_the_api_page(room):
    names = listed((DOCS / "api.rst").read_text())
    everywhere = set().union(*names.values())
    modules = {"layers", "testing", "learning"}  # rooms, with headings of their own
    missing = set(room.__all__) - (everywhere if room is not bl else names["bilevel"]) - modules
    assert not missing, f"docs/api.rst lacks {sorted(missing)} of {room.__name__}"
    stale = {name for name in names.get(room.__name__, set()) if not hasattr(room, name)}
    assert not stale, f"docs/api.rst lists {sorted(stale)}, which {room.__name__} has not"


def messages() -> list[str]:
    """Every string of the library, the parts computed at run time as an ellipsis."""
    found = []
    for path in (ROOT / "src" / "bilevel").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def quoted() -> list[str]:
    text = (DOCS / "it_does_not_converge.md").read_text()
    return re.findall(r"```\{code-block\} text\n:class: message\n(.*?)\n```", text, re.S)


@pytest.mark.parametrize("message", quoted())
def test_every_message_explained_is_one_that_is_raised(message):
    pieces = [re.escape(piece.strip()) for piece in message.split("…") if piece.strip()]
    pattern = re.compile(r".*".join(pieces), re.S)
    assert any(pattern.search(text) for text in messages()), f"no code raises {message!r}"


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text(), re.S)


@pytest.fixture
def contributed(float64, monkeypatch):
    """What CONTRIBUTING.md defines, run from top to bottom on a registry of its own."""
    monkeypatch.setattr(registry, "TERMS", [])
    monkeypatch.setattr(registry, "OPERATORS", [])
    names = {"__name__": "contributing"}
    for block in python_blocks(ROOT / "CONTRIBUTING.md"):
        exec(compile(block, "CONTRIBUTING.md", "exec"), names)
    return names


def test_the_worked_examples_run_and_obey_the_laws(contributed):
    terms, operators = contributed["TERMS"], contributed["OPERATORS"]
    assert len(terms) == 3 and len(operators) == 1
    term_laws = (
        test_terms.test_values_are_per_sample,
        test_terms.test_prox,
        test_terms.test_prox_is_pure,
        test_terms.test_a_step_for_all_is_a_step_for_each,
        test_terms.test_prox_has_the_derivative_of_its_differences,
        test_terms.test_weight_multiplies,
        test_terms.test_take,
    )
    operator_laws = (
        test_operators.test_adjoint,
        test_operators.test_norm,
        test_operators.test_take,
        test_operators.test_samples_do_not_interact,
    )
    for law, case in [*product(term_laws, terms), *product(operator_laws, operators)]:
        law(case)


def test_the_readme_runs():
    names: dict = {}
    for block in python_blocks(ROOT / "README.md"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["weight"].grad.isfinite() and names["noisy"].grad.shape == (1, 1, 32, 32)


def test_the_quick_start_runs():
    names: dict = {}
    for block in python_blocks(DOCS / "start.md"):
        exec(compile(block, "start.md", "exec"), names)
    assert names["solution"].converged.all()
    assert names["gradient"].shape == (50,) and names["restored"].shape == (2, 1, 16, 16)
