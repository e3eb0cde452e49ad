"""The run folder: one run at a time, nothing doubled, nothing lost, nothing overwritten unasked."""

import builtins
import importlib
import os
import shutil
import signal
import tempfile
import threading
from pathlib import Path

import pytest
import torch

import learning_problem
from bilevel import warm_start
from bilevel.learning import Damaged, RunFolder, read_config, read_metrics, read_model
from bilevel.learning.checkpoint import Checkpoints
from learning_problem import events, fork_server, numbers, run, sgd, squared_error

learn_module = importlib.import_module("bilevel.learning.learn")
resource = pytest.importorskip("resource")


def in_child(target, *args):
    """Run to the end in another process; returns its exit code (-9: killed)."""
    child = fork_server.Process(target=target, args=args)
    child.start()
    child.join(60)
    assert child.exitcode is not None
    return child.exitcode


def test_what_a_run_leaves(tmp_path):
    result = run(tmp_path / "new" / "run", steps=4, optimizer=sgd)
    assert result.out == tmp_path / "new" / "run"
    names = sorted(p.name for p in result.out.iterdir() if not p.name.startswith("."))
    assert names == [
        "certificate.json",
        "checkpoints",
        "config.toml",
        "metrics.csv",
        "model.safetensors",
        "tensorboard",
    ]
    header = (result.out / "metrics.csv").read_text().splitlines()[0]
    assert header == (
        "step,loss,grad_norm,seconds,gap,residual,adjoint_residual,evaluations,"
        "lower_iterations,adjoint_products,log_weight"
    )
    assert read_metrics(result.out) == result.history
    assert events(result.out) == [(r["step"], pytest.approx(r["loss"])) for r in result.history]


def test_an_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"not empty \(1 entries, 'thesis.tex' among them\)"):
        run(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no config.toml, so it is not a run folder"):
        run(tmp_path, resume=True)
    assert (tmp_path / "thesis.tex").read_text() == "x"
    run(tmp_path / "empty", steps=1)
    with pytest.raises(FileExistsError, match="pass resume=True to go on with its run"):
        run(tmp_path / "empty", steps=1)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "run").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file: choose another folder"):
        run(tmp_path / "run")
    with pytest.raises(NotADirectoryError, match="Cannot write .*run/below: Not a directory"):
        run(tmp_path / "run" / "below")


def learn_unprivileged(folder, report):
    run(folder / "first", steps=1)  # all is imported while everything can be read
    for path in (folder, folder / "first"):
        path.chmod(0o555)
    if os.geteuid() == 0:  # who may write everywhere
        os.setuid(65534)
    for path, resume in [(folder / "second", False), (folder / "first", True)]:
        try:
            run(path, resume=resume)
        except PermissionError as error:
            report.put(str(error))


def test_an_unwritable_folder_is_told(tmp_path):
    report = fork_server.SimpleQueue()
    try:
        assert in_child(learn_unprivileged, tmp_path, report) == 0
    finally:
        for path in (tmp_path, tmp_path / "first"):
            path.chmod(0o755)
    for _ in range(2):
        assert not report.empty()
        assert "Cannot write" in (told := report.get()) and "a folder you may write to" in told


def lose_permission(folder, report):
    """Learn in a folder that others may not write to any more after step 3."""
    learn_module.PATIENCE = 0  # a checkpoint a step
    with tempfile.TemporaryDirectory() as first:  # all is imported while everything can be read
        run(first, optimizer=sgd, steps=1)
    if os.geteuid() == 0:  # who may write everywhere
        os.chown(folder, 65534, 65534)
        os.setuid(65534)

    def close(step, row):
        if step == 3:
            for path in (folder / "checkpoints", folder):
                path.chmod(0o555)

    try:
        run(folder, optimizer=sgd, on_step=close)
    except PermissionError as error:
        report.put((str(error), error.__notes__))


@pytest.fixture
def reachable_folder():
    """Not below tmp_path, which only its owner may enter."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def test_a_folder_that_is_closed_during_the_run_keeps_the_last_good_checkpoint(reachable_folder):
    report, folder = fork_server.SimpleQueue(), reachable_folder
    try:
        assert in_child(lose_permission, folder, report) == 0
    finally:
        for path in (folder, *folder.glob("checkpoints")):
            path.chmod(0o755)
    message, notes = report.get()
    assert "Cannot write" in message and "a folder you may write to" in message
    assert "Step 4 could not be saved" in notes[0]
    assert "newest checkpoint is that of step 3: resume=True goes on from there" in notes[0]
    assert numbers(run(folder, optimizer=sgd, resume=True)) == numbers(run(optimizer=sgd))


# the thread that writes events dies loudly, too
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("which", ["checkpoints", "."])
def test_a_folder_that_is_deleted_during_the_run_is_told_or_made_again(
    tmp_path, monkeypatch, which
):
    monkeypatch.setattr(learn_module, "PATIENCE", 0)
    folder = tmp_path / "run"

    def delete(step, row):
        if step == 3:
            shutil.rmtree(folder / which)

    def learn():
        return run(folder, optimizer=sgd, on_step=delete)

    if which == "checkpoints":
        assert numbers(learn()) == numbers(run(optimizer=sgd))
        assert Checkpoints(folder / which).newest()["step"] == 10
    else:
        with pytest.raises(FileNotFoundError, match="Cannot write .*: No such file") as caught:
            learn()
        assert "Step 4 could not be saved" in caught.value.__notes__[0]
        for thread in threading.enumerate():  # TensorBoard's ends by an exception: here, not later
            if type(thread).__module__.startswith("tensorboard"):
                thread.join(5)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with RunFolder(tmp_path):
        pattern = rf"in use by another run \(pid {os.getpid()} on .*\): wait until it ends"
        with pytest.raises(RuntimeError, match=pattern):
            run(tmp_path, resume=True)
    run(tmp_path, steps=1)  # free again


def hold(folder, ready):
    with RunFolder(folder):
        ready.set()
        signal.pause()


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    ready = fork_server.Event()
    holder = fork_server.Process(target=hold, args=(tmp_path, ready))
    holder.start()
    assert ready.wait(60)
    with pytest.raises(RuntimeError, match=rf"pid {holder.pid} on "):
        run(tmp_path)
    holder.kill()
    holder.join()
    run(tmp_path, steps=1)


def test_rows_after_the_checkpoint_are_cut(tmp_path):
    whole = run(tmp_path / "whole", steps=6, optimizer=sgd)
    folder = tmp_path / "cut"
    run(folder, steps=3, optimizer=sgd)
    with (folder / "metrics.csv").open("a") as file:  # rows of steps that no checkpoint has,
        file.write("4,0.5,1.0,1.0,,,,1,0,0,0.1\n5,0.2")  # the last cut short by a kill
    result = run(folder, steps=6, optimizer=sgd, resume=True)
    assert numbers(result) == numbers(whole)
    assert [row["step"] for row in read_metrics(folder)] == [1, 2, 3, 4, 5, 6]
    assert events(folder) == events(tmp_path / "whole")


def test_leftovers_of_a_kill_are_swept(tmp_path):
    run(tmp_path, steps=1)
    leftover = tmp_path / "checkpoints" / ".step-00000002.safetensors.tmp"
    leftover.write_bytes(b"half")
    run(tmp_path, steps=2, resume=True)
    assert not leftover.exists()


def test_a_damaged_table_is_told(tmp_path):
    run(tmp_path, steps=2)
    table = tmp_path / "metrics.csv"
    good = table.read_text()
    for bad in [good.replace("\n1,", "\none,"), good.replace("\n1,", "\n"), "a,b\n1,2\n", "\xff\n"]:
        table.write_text(bad, encoding="latin-1")
        with pytest.raises(ValueError, match=r"metrics\.csv cannot be read .*: repair or delete"):
            run(tmp_path, steps=3, resume=True)
    table.unlink()
    assert (
        len(run(tmp_path, steps=3, resume=True).history) == 1
    )  # the run goes on, its past is lost


def test_a_damaged_checkpoint_is_refused_and_the_previous_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(learn_module, "PATIENCE", 0)
    whole = run(tmp_path / "whole", steps=6, optimizer=sgd)
    folder = tmp_path / "damaged"
    run(folder, steps=3, optimizer=sgd)
    newest = sorted((folder / "checkpoints").iterdir())[-1]
    data = bytearray(newest.read_bytes())
    data[-5] ^= 4
    newest.write_bytes(data)
    with pytest.raises(
        Damaged, match=r"step-00000003.*is damaged.*step-0000000\d.* is good: delete"
    ):
        run(folder, steps=6, optimizer=sgd, resume=True)
    newest.unlink()
    assert numbers(run(folder, steps=6, optimizer=sgd, resume=True)) == numbers(whole)


def fill_the_disk(folder, report):
    """Learn under a limit on the size of files, which the warm starts of later samples exceed."""
    learn_module.PATIENCE = 0  # a checkpoint a step
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    try:
        run(folder, steps=7, batch_size=1, loss=hoarding_loss)
    except OSError as error:
        report.put((str(error), error.__notes__))


def hoarding_loss(model, batch):
    context = warm_start.current()
    context.recall((torch.zeros(1, 10_000),))
    context.keep((torch.zeros(1, 10_000),))  # 40 kB a sample
    return squared_error(model, batch)


def test_a_full_disk_keeps_the_last_good_checkpoint(tmp_path):
    report = fork_server.SimpleQueue()
    assert in_child(fill_the_disk, tmp_path, report) == 0
    message, notes = report.get()
    assert "Cannot write" in message and "File too large. Free space" in message
    assert "could not be saved" in notes[0] and "resume=True goes on from there" in notes[0]
    assert not list(tmp_path.rglob("*.tmp"))
    step = Checkpoints(tmp_path / "checkpoints").newest()["step"]
    assert 0 < step < 7 and f"newest checkpoint is that of step {step}:" in notes[0]
    whole = run(batch_size=1, loss=hoarding_loss)
    assert numbers(run(tmp_path, batch_size=1, loss=hoarding_loss, resume=True)) == numbers(whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_table_that_cannot_grow_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    append = RunFolder.append

    def fill(self, record):
        if record["step"] == 3:
            self._rows.close()
            self._rows = open("/dev/full", "w")
        append(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append", fill)
        patch.setattr(learn_module, "PATIENCE", 0)
        with pytest.raises(OSError, match=r"Cannot write .*metrics\.csv: No space left") as caught:
            run(tmp_path, optimizer=sgd)
    assert "Step 2 is saved in" in caught.value.__notes__[0]
    assert numbers(run(tmp_path, optimizer=sgd, resume=True)) == numbers(run(optimizer=sgd))


def test_without_tensorboard_it_is_said_once(tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return original(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.warns(UserWarning, match="TensorBoard is not installed.*pip install") as said:
        run(tmp_path, steps=3)
    assert len(said) == 1 and said[0].filename == learning_problem.__file__  # who called learn
    assert not (tmp_path / "tensorboard").exists()


def test_reading_what_is_no_run_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no config.toml, so it is not a run folder"):
        read_config(tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        read_model(tmp_path)
    (tmp_path / "config.toml").write_text("model = [")
    with pytest.raises(
        ValueError, match=r"config\.toml cannot be read .*: restore it or run again"
    ):
        read_config(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04.")
    with pytest.raises(Damaged, match=r"model\.safetensors is no safetensors.* or learn again"):
        read_model(tmp_path)
    assert read_metrics(tmp_path) == []
