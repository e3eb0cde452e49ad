"""The command line, as a person uses it: help, evaluate, info, demo."""

import subprocess
import sys

import pytest
import typer

from bilevel_cli import app
from command_line import bilevel, said


def leaves(command):
    """Each command in a group, by its words."""
    for word, child in command.commands.items():
        inner = leaves(child) if hasattr(child, "commands") else [()]
        yield from ((word, *rest) for rest in inner)


COMMANDS = list(leaves(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_shows_an_example_that_is_this_command(words):
    result = bilevel(*words, "--help")
    assert result.exit_code == 0
    assert f"Example: bilevel {' '.join(words)}" in said(result)


def test_help_lists_the_commands():
    result = bilevel("--help")
    assert all(words[0] in result.output for words in COMMANDS)


def test_help_answers_without_torch():
    """The commands are a package of their own: `bilevel` imports torch, at 2 s or more."""
    code = (
        "import sys; from bilevel_cli import app\n"
        "app(['learn', '--help'], standalone_mode=False)\n"
        "sys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "bilevel learn" in result.stdout


# ---------------------------------------------------------------------------- evaluate and info


def test_evaluate_and_info(here, short_slider):
    before = bilevel("info", "run")
    assert "weight = " in before.output and "not evaluated yet" in before.output
    result = bilevel("evaluate", "run", "--images", "photos", "--noise", "15,40")
    assert result.exit_code == 0, result.output
    for word in ("noisy", "TV, grid search", "TV, learned", "non-local means", "noise 40"):
        assert word in result.output
    assert (here / "run" / "report.html").exists()
    assert "TV, learned" in bilevel("info", "run").output
    again = bilevel("evaluate", "run", "--images", "photos")
    assert again.exit_code == 1 and "To replace it, pass --force" in said(again)


def test_evaluate_and_info_of_no_run(here):
    for words in (["evaluate", "photos", "--images", "photos"], ["info", "photos"]):
        result = bilevel(*words)
        assert result.exit_code == 1 and "photos holds no config.toml" in said(result)
    assert "noisy.png holds no config.toml" in said(bilevel("info", "noisy.png"))


def test_info_of_a_damaged_model(here):
    (here / "run" / "model.safetensors").write_bytes(b"\x80\x04junk")
    result = bilevel("info", "run")
    assert result.exit_code == 1
    assert "model.safetensors is no safetensors file" in said(result)


def test_demo_takes_the_next_free_folder(tmp_path, monkeypatch):
    from bilevel.tasks import demo

    monkeypatch.chdir(tmp_path)
    assert str(demo.free_folder()) == "runs/demo"
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert str(demo.free_folder()) == "runs/demo-2"
    (tmp_path / "runs" / "demo-2").mkdir()
    assert str(demo.free_folder()) == "runs/demo-3"


def test_demo_in_small(tmp_path, monkeypatch):
    """The whole of it, on a corner of each photograph and at one noise level."""
    from dataclasses import replace

    from bilevel.tasks import demo, evaluation

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "JOB", replace(demo.JOB, crop=16, crops=3))
    monkeypatch.setattr(demo, "LEVELS", (25.0,))
    monkeypatch.setattr(demo, "SIZE", 32)
    result = bilevel("demo")
    assert result.exit_code == 0, result.output
    run = tmp_path / "runs" / "demo"
    table = evaluation.means(evaluation.read_rows(run))
    for method in ("TV, learned for every noise", "TV, learned at noise 25"):
        assert table[method][25.0][0] > table["noisy"][25.0][0] + 3
    assert "Report: runs/demo/report.html" in result.output and (run / "report.html").exists()
