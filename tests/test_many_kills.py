"""Many processes, of which one dies or all are told to end; and what torchrun does then."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from bilevel.learning import read_metrics
from bilevel.learning.checkpoint import Checkpoints
from bilevel.learning.signals import Signals
from bilevel.tasks import runs
from command_line import bilevel
from learning_problem import noisy_error, run
from many import Team, noisy, together

pytest.importorskip("lightning_fabric")


def saved(folder):
    """The step of the newest checkpoint; -1 before the first."""
    paths = Checkpoints(folder / "checkpoints").paths()
    return int(paths[-1].stem.removeprefix("step-")) if paths else -1


def wait_for_step(folder, step, team):
    while saved(folder) < step:
        assert all(process.is_alive() for process in team.processes)
        time.sleep(0.01)


LONG = 100_000  # steps; the end is never reached


def test_kills_at_random_instants_and_a_resume_to_the_last_digit(tmp_path):
    chance = random.Random()  # not seeded: other instants every time
    reached = 0
    for kill in range(6):
        team = Team(noisy, tmp_path, LONG, True)
        wait_for_step(tmp_path, reached + 1, team)
        time.sleep(chance.uniform(0, 0.2))
        team.processes[kill % 2].kill()
        outcomes = team.outcomes()
        survivor = outcomes[1 - kill % 2]
        assert outcomes[kill % 2] is None and "has lost another one" in survivor
        assert "resume=True goes on from" in survivor and str(tmp_path) in survivor
        reached = saved(tmp_path)
        if kill % 2:  # the first process lives: it has saved its last completed step
            assert f"Step {reached} is saved in" in survivor
    whole, _ = together(noisy, None, reached + 20)
    resumed, _ = together(noisy, tmp_path, reached + 20, True)
    assert resumed == whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_all_saves_the_last_completed_step(tmp_path, number):
    team = Team(noisy, tmp_path, LONG, True)
    wait_for_step(tmp_path, 1, team)
    time.sleep(random.uniform(0, 0.1))
    for process in team.processes:
        os.kill(process.pid, number)
    first, second = team.outcomes()
    step = saved(tmp_path)
    expected = "Interrupted." if number == signal.SIGINT else "Stopped by SIGTERM"
    assert f"{expected}" in first and f"Step {step} is saved in" in first
    assert "This happened in the first process" in second
    assert together(noisy, tmp_path, step + 5, True)[0] == together(noisy, None, step + 5)[0]


def test_a_signal_beside_an_error_does_not_take_its_place():
    with Signals() as signals:
        with pytest.raises(ZeroDivisionError), signals.held():
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError
        with signals.held():  # the others are told of the end
            pass


# -------------------------------------------------------------------------------- with torchrun

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_under_torchrun_a_killed_worker_ends_the_run_with_a_message(tmp_path):
    out, pids = tmp_path / "run", tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib, sys\n"
        f"sys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        "from learning_problem import noisy_error, run\n"
        f"pathlib.Path({str(pids)!r}, os.environ['RANK']).write_text(str(os.getpid()))\n"
        f"run({str(out)!r}, steps={LONG}, batch_size=3, loss=noisy_error)\n"
    )
    with subprocess.Popen([*TORCHRUN, script], stderr=subprocess.PIPE, text=True) as torchrun:
        while saved(out) < 1:
            assert torchrun.poll() is None
            time.sleep(0.05)
        time.sleep(random.uniform(0, 0.3))
        os.kill(int((pids / "1").read_text()), signal.SIGKILL)
        _, told = torchrun.communicate(timeout=60)
    assert torchrun.returncode == 1
    assert "SIGKILL" in told  # torchrun's report
    # whichever comes first, the broken connection or torchrun's SIGTERM
    assert "has lost another one" in told or "Stopped by SIGTERM" in told, told
    step = saved(out)
    assert f"Step {step} is saved in {out}: resume=True goes on from there." in told
    assert len(run(out, steps=step + 2, resume=True, batch_size=3, loss=noisy_error).history) > step


def learn_by_command(out):
    options = ["--images", "skimage", "--crops", "3", "--crop", "16", "--steps", "3", "--out", out]
    result = bilevel("learn", "denoise", *options)
    return result.exit_code, result.output


def test_the_command_learns_with_many_processes(tmp_path):
    job = runs.Job.of("denoise", {"images": "skimage", "crops": 3, "crop": 16})
    alone = runs.learn(job, tmp_path / "one", steps=3, progress=False).history
    (code, first), (other_code, second) = together(learn_by_command, tmp_path / "two")
    assert code == other_code == 0, first + second
    assert "Learned in 3 steps" in first and "Learned" not in second  # told once
    rows = read_metrics(tmp_path / "two")
    # the first step to rounding; line searches on adjoints that are right to 1e-2 let it grow
    assert rows[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-12)
    assert rows[-1]["loss"] == pytest.approx(alone[-1]["loss"], rel=1e-2)
