"""kill -9 at any instant, in the middle of writing too: the resumed run has the same last digit."""

import importlib
import os
import random
import signal
import time

import pytest
import torch

from bilevel.learning import Interrupted, RunFolder, checkpoint, read_metrics, read_model
from bilevel.learning.checkpoint import Checkpoints
from learning_problem import events, fork_server, noisy_error, numbers, run

learn_module = importlib.import_module("bilevel.learning.learn")

OPTIONS = dict(
    steps=300,
    batch_size=3,
    loss=noisy_error,
    optimizer=lambda p: torch.optim.Adam(p, lr=0.01),
)


def child(folder, **options):
    run(folder, resume=True, **OPTIONS | options)


def busy_child(folder):
    learn_module.PATIENCE = 1  # writes half of the time, so that kills hit writes
    child(folder)


def start(target, *args, **options):
    process = fork_server.Process(target=target, args=args, kwargs=options)
    process.start()
    return process


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def same_as(whole, folder):
    rows = read_metrics(folder)
    for row in rows:
        del row["seconds"]
    model = {k: v.tolist() for k, v in read_model(folder).items()}
    steps = [step for step, _ in events(folder)]
    return (rows, model) == numbers(whole) and steps == list(range(1, len(rows) + 1))


def test_twenty_kills_at_random_instants(tmp_path):
    whole = run(**OPTIONS)
    chance = random.Random()  # not seeded: other instants every time
    reached = []
    for _ in range(20):
        process = start(busy_child, tmp_path)
        time.sleep(chance.uniform(0, 0.4))
        process.kill()
        process.join()
        reached.append(len(read_metrics(tmp_path)))
    process = start(child, tmp_path)
    process.join(60)
    assert process.exitcode == 0, f"rows after each kill: {reached}"
    assert same_as(whole, tmp_path), f"rows after each kill: {reached}"


def interrupted_child(folder, report):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
    learn_module.PATIENCE = 1
    try:
        child(folder, steps=100_000)
    except Interrupted as interruption:
        report.put(str(interruption))


def test_a_real_ctrl_c_at_any_instant(tmp_path):
    report = fork_server.SimpleQueue()
    process = start(interrupted_child, tmp_path, report)
    while len(read_metrics(tmp_path)) < 5:
        assert process.is_alive()
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))
    os.kill(process.pid, signal.SIGINT)
    process.join(60)
    assert process.exitcode == 0
    steps = Checkpoints(tmp_path / "checkpoints").newest()["step"]
    assert f"Interrupted. Step {steps} is saved in {tmp_path}" in report.get()
    assert same_as(run(**OPTIONS | {"steps": steps}), tmp_path)


def before_call(module, name, count):
    """Die instead of the count-th call."""
    original, left = getattr(module, name), [count]

    def call(*args, **options):
        left[0] -= 1
        if left[0] == 0:
            die()
        return original(*args, **options)

    setattr(module, name, call)


def half_a_file(count):
    original, left = checkpoint.write_bytes, [count]

    def write_bytes(path, data):
        left[0] -= 1
        if left[0] == 0:
            path.with_name(f".{path.name}.tmp").write_bytes(data[: len(data) // 2])
            die()
        original(path, data)

    checkpoint.write_bytes = write_bytes


def half_a_row(count):
    original, left = RunFolder.append, [count]

    def append(self, record):
        original(self, record)
        left[0] -= 1
        if left[0] == 0:
            self._rows.write("99,0.12")
            self._rows.flush()
            die()

    RunFolder.append = append


INSTANTS = {
    "before the first file": (before_call, os, "replace", 1),
    "before the table": (before_call, os, "replace", 2),
    "before the first checkpoint": (before_call, os, "replace", 3),
    "before the first model": (before_call, os, "replace", 4),
    "before a checkpoint is moved": (before_call, os, "replace", 12),
    "before a model is moved": (before_call, os, "replace", 13),
    "before a certificate is moved": (before_call, os, "replace", 14),
    "before a file is synchronised": (before_call, os, "fsync", 25),
    "in a checkpoint": (half_a_file, 12),
    "in a model": (half_a_file, 13),
    "in a row": (half_a_row, 4),
    "before an old checkpoint goes": (before_call, checkpoint.Path, "unlink", 2),
}


def killed_child(folder, instant):
    learn_module.PATIENCE = 0  # a checkpoint a step
    prepare, *args = INSTANTS[instant]
    prepare(*args)
    child(folder, steps=12)


@pytest.mark.parametrize("instant", INSTANTS)
def test_a_kill_while_writing(tmp_path, instant):
    process = start(killed_child, tmp_path, instant)
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    child(tmp_path, steps=12)
    assert same_as(run(**OPTIONS | {"steps": 12}), tmp_path)
