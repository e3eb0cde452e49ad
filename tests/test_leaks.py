"""Many steps hold what few did: memory, tensors, graphs, files, threads."""

import gc
import os
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch

import bilevel as bl
from bilevel.learning import learn
from learning_problem import Denoiser, Signals, fork_server, noisy_error, run, squared_error

if not Path("/proc/self/statm").exists():
    pytest.skip("needs /proc to count memory and files", allow_module_level=True)

Node = torch.autograd.function.BackwardCFunction  # of functions written in Python
SLACK = 8  # MiB: the rows of the history (1 MiB for 800) and the allocator's own ways


def files_open_for(seconds):
    """The files open now and `seconds` later: not one that TensorBoard's thread opens to append."""
    now = set(os.listdir("/proc/self/fd"))
    time.sleep(seconds)
    return len(now & set(os.listdir("/proc/self/fd")))


def holdings():
    """What this process holds. Without a collection before: reference counts must be enough."""
    kinds = Counter(map(type, gc.get_objects()))
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "tensors": sum(n for kind, n in kinds.items() if issubclass(kind, torch.Tensor)),
        "nodes": sum(n for kind, n in kinds.items() if issubclass(kind, Node)),
        "files": min(files_open_for(0.02) for _ in range(5)),
        "threads": threading.active_count(),
        "tasks": len(os.listdir("/proc/self/task")),
        "MiB": pages * os.sysconf("SC_PAGESIZE") / 2**20,
    }


def learn_batches(steps, look, folder):
    options = dict(batch_size=3, loss=noisy_error, on_step=lambda step, row: look(step))
    run(folder, steps=steps, **options)


def learn_denoiser(steps, look, folder):
    learn(
        Denoiser(),
        Signals()[:2],
        squared_error,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.05),
        steps=steps,
        out=folder,
        progress=False,
        on_step=lambda step, row: look(step),
    )


def argmin_and_backward(steps, look, folder):
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 12, dtype=torch.float64)
    for step in range(1, steps + 1):
        x = bl.argmin(bl.LeastSquares(y) + weight * bl.TotalVariation(dims=1))
        x.square().sum().backward()
        look(step)


def newton_and_adjoint(steps, look, folder):
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    A = bl.Matrix(torch.tensor([[1.0, 0.2], [0.0, 1.0]], dtype=torch.float64))
    for step in range(1, steps + 1):
        x = bl.argmin(bl.LeastSquares(y) @ A + weight * bl.LeastSquares(), solver=bl.Newton())
        x.square().sum().backward()
        look(step)


def second_derivatives(steps, look, folder):
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 6, dtype=torch.float64)
    for step in range(1, steps + 1):
        x = bl.argmin(bl.LeastSquares(y) + weight * bl.Huber(0.1))
        (slope,) = torch.autograd.grad(x.square().sum(), weight, create_graph=True)
        torch.autograd.grad(slope, weight)
        look(step)


def watch(report, job, first, last, folder):
    """Run the job; report what it holds after its step `first` and after its step `last`."""
    torch.set_num_threads(1)
    looks = []

    def look(step):
        if step == first:
            gc.collect()
            gc.disable()  # from here on a cycle is a leak
        if step in (first, last):
            looks.append(holdings())

    job(last, look, folder)
    report.put(looks)


JOBS = [
    (learn_batches, 200, 1000),
    (argmin_and_backward, 200, 1000),
    (newton_and_adjoint, 200, 1000),
    (learn_denoiser, 20, 100),  # slower
    (second_derivatives, 20, 100),
]


@pytest.mark.parametrize("job, first, last", JOBS)
def test_nothing_grows(tmp_path, job, first, last):
    report = fork_server.SimpleQueue()
    process = fork_server.Process(target=watch, args=(report, job, first, last, tmp_path))
    process.start()
    process.join(200)
    process.kill()
    assert not report.empty()
    before, after = report.get()
    growth = after.pop("MiB") - before.pop("MiB")
    assert after == before
    assert growth < SLACK, f"{growth:.1f} MiB more after {last - first} steps"


def test_a_leak_is_seen():
    before = holdings()
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    kept = bl.argmin(bl.LeastSquares(torch.ones(1, 3).double()) + weight * bl.L1())
    after = holdings()
    assert kept.requires_grad
    assert after["tensors"] > before["tensors"] and after["nodes"] > before["nodes"]
