"""learn: it learns, tells what it did, and refuses bad input in clear words."""

import json
import random

import numpy as np
import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.differentiation import Certificate
from bilevel.learning import learn, read_config, read_metrics
from bilevel.learning import learner as learner_module
from bilevel.learning.batches import Batches
from learning_problem import (
    ONE,
    Denoiser,
    Pairs,
    Quadratic,
    Shrink,
    Signals,
    noisy_error,
    numbers,
    rosenbrock,
    run,
    sgd,
    squared_error,
)


def test_the_default_reaches_the_minimum_and_ends_there():
    result = learn(Quadratic(), ONE, rosenbrock, progress=False)
    assert abs(result.model.weight.item() - 1) < 1e-8
    assert 3 < result.steps < 40 and len(result.history) == result.steps
    assert result.history[-1]["weight"] == result.model.weight.item()
    assert result.certificate is None and result.out is None


def test_a_row_pairs_the_loss_with_its_parameters():
    result = learn(Quadratic(), ONE, rosenbrock, steps=5, progress=False)
    assert result.history[0]["weight"] == 3.0
    for k, row in enumerate(result.history, start=1):
        w = row["weight"]
        assert row["step"] == k
        assert row["loss"] == pytest.approx((1 - w) ** 2 + 5 * (w**2 - 1) ** 2, rel=1e-12)
        assert row["grad_norm"] == pytest.approx(abs(-2 * (1 - w) + 20 * w * (w**2 - 1)), rel=1e-12)


def test_a_parameter_named_as_a_column_gets_its_own():
    model = nn.Module()
    model.loss = nn.Parameter(torch.tensor(2.0))
    result = learn(model, ONE, lambda m, batch: m.loss**2, steps=1, progress=False)
    assert result.history[0]["loss"] == 4 and result.history[0]["parameter loss"] == 2


def test_no_theta_is_evaluated_twice_in_a_row():
    visited = []

    def loss(model, batch):
        visited.append(model.weight.item())
        return rosenbrock(model, batch)

    result = learn(Quadratic(), ONE, loss, progress=False)
    assert sum(row["evaluations"] for row in result.history) == len(visited)
    assert all(a != b for a, b in zip(visited, visited[1:], strict=False))


def test_the_seed_decides_and_the_caller_keeps_his_random_numbers():
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    expected = torch.rand(1).item(), random.random(), np.random.rand()
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    one = run(batch_size=3, loss=noisy_error, seed=1)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected
    assert numbers(run(batch_size=3, loss=noisy_error, seed=1)) == numbers(one)
    assert numbers(run(batch_size=3, loss=noisy_error, seed=2)) != numbers(one)


def test_an_epoch_has_every_sample_once():
    batches = Batches(Pairs(7), 3, 0, torch.device("cpu"))
    for _ in range(2):
        epoch = [batches.next() for _ in range(3)]
        assert [len(batch["noisy"]) for batch in epoch] == [3, 3, 1]
        index = torch.cat([batch["index"] for batch in epoch])
        assert sorted(index.tolist()) == list(range(7))
        assert torch.cat([batch["clean"] for batch in epoch]).equal(Pairs(7).clean[index])


def test_the_certificate_lands_in_table_and_file(tmp_path, monkeypatch):
    def differentiate(loss, parameters):
        certificate = Certificate(
            solver="PrimalDual",
            gap=torch.tensor([1e-9, 3e-9]),
            residual=torch.tensor([1e-8, 2e-8]),
            iterations=torch.tensor([10, 20]),
            influence=float("inf"),
        )
        return torch.autograd.grad(loss, parameters), certificate

    monkeypatch.setattr(learner_module, "differentiate", differentiate)

    def lbfgs(parameters):  # several evaluations a step
        return torch.optim.LBFGS(parameters, max_iter=3, line_search_fn="strong_wolfe")

    result = run(tmp_path, steps=2, optimizer=lbfgs)
    row = result.history[0]
    assert row["gap"] == pytest.approx(3e-9) and row["residual"] == pytest.approx(2e-8)
    assert row["adjoint_residual"] is None
    assert row["evaluations"] > 1 and row["lower_iterations"] == 30 * row["evaluations"]
    assert read_metrics(tmp_path) == result.history
    stored = json.loads((tmp_path / "certificate.json").read_text())
    assert stored["step"] == 2 and stored["gap"] == pytest.approx(3e-9)
    assert stored["solver"] == "PrimalDual" and stored["influence"] == "inf"  # strict JSON
    again = run(tmp_path, steps=2, resume=True, optimizer=lbfgs).certificate
    assert again.as_dict() == result.certificate.as_dict()


def test_warm_starts_save_iterations(monkeypatch):
    class Images(Denoiser):  # isotropic total variation, which takes its time
        def forward(self, y):
            energy = bl.LeastSquares(y) + self.log_weight.exp() * bl.TotalVariation()
            return bl.argmin(energy, tol=1e-5)  # less would end by Newton steps

    image = {k: torch.stack([signal[k] for signal in Signals()])[None] for k in ("clean", "noisy")}

    def iterations():
        result = learn(Images(), [image], squared_error, progress=False, steps=3, optimizer=sgd)
        return [row["lower_iterations"] for row in result.history]

    first, *later = iterations()
    assert max(later) < first / 2
    monkeypatch.setattr(
        "bilevel.warm_start.WarmStarts.get", lambda store, solve, sample, like: like
    )
    cold, *later = iterations()
    assert cold == first and min(later) > first / 2


def test_config_tells_what_was_run(tmp_path):
    config = {"model": {"name": "shrink", "value": 0.5, "none": None}, "images": ["a.png"]}
    run(tmp_path, steps=2, config=config, batch_size=3, seed=4)
    read = read_config(tmp_path)
    assert read["model"] == {"name": "shrink", "value": 0.5} and read["images"] == ["a.png"]
    assert read["learn"]["optimizer"].startswith("Adam(lr=0.01")
    assert (read["learn"]["steps"], read["learn"]["seed"], read["learn"]["batch_size"]) == (2, 4, 3)
    run(tmp_path, steps=3, batch_size=3, seed=4, resume=True)
    assert read_config(tmp_path)["model"] == read["model"]
    assert read_config(tmp_path)["learn"]["steps"] == 3


def test_on_step_sees_every_row():
    seen = []
    result = run(on_step=lambda step, row: seen.append((step, row)), optimizer=sgd)
    assert seen == list(enumerate(result.history, start=1))


def test_progress_is_shown_or_not(capsys):
    run(optimizer=sgd, progress=True)
    shown = capsys.readouterr().out
    assert "10/10" in shown and "loss" in shown
    run(optimizer=sgd, progress=False)
    assert capsys.readouterr() == ("", "")


class Frozen(nn.Module):
    pass


GOOD = {"x": torch.ones(2)}


@pytest.mark.parametrize(
    "error, message, options",
    [
        (ValueError, "steps=-1: pass the number", {"steps": -1}),
        (ValueError, "resume=True, but out=None", {"resume": True}),
        (ValueError, "Frozen has no parameter .* nothing to learn", {"model": Frozen()}),
        (TypeError, "a function of the parameters, got SGD", {"optimizer": sgd([torch.ones(1)])}),
        (TypeError, "must be a function of the parameters, got int", {"optimizer": lambda p: 3}),
        (TypeError, "data is a generator without a length", {"data": (GOOD for _ in range(2))}),
        (TypeError, "data is a dict: a list of dicts is needed", {"data": {"y": torch.ones(3)}}),
        (TypeError, "learn needs an nn.Module with parameters, got <function", {"model": sgd}),
        (ValueError, "data is empty", {"data": []}),
        (TypeError, r"data\[0\] is a Tensor: learn needs a dict", {"data": torch.ones(3)}),
        (
            ValueError,
            r"data\[1\] cannot be stacked with data\[0\]: x \(3,\) against x \(2,\)",
            {"data": [GOOD, {"x": torch.ones(3)}]},
        ),
        (ValueError, r"data\[1\] cannot be stacked", {"data": [GOOD, {"y": torch.ones(2)}]}),
        (ValueError, "batch_size=8 does not fit 7 samples: take 1 to 7", {"batch_size": 8}),
        (ValueError, "batch_size=0 does not fit", {"batch_size": 0}),
        (ValueError, r"must return a tensor with one number, got shape \(7, 2, 3\)",
         {"loss": lambda m, b: m(b["noisy"])}),
        (ValueError, "one number, got float", {"loss": lambda m, b: 0.5}),
        (ValueError, "does not depend on the parameters", {"loss": lambda m, b: b["noisy"].mean()}),
    ],
)  # fmt: skip
def test_bad_input_is_told(error, message, options):
    options = {
        "model": Shrink(),
        "data": Pairs(),
        "loss": squared_error,
        "progress": False,
    } | options
    with pytest.raises(error, match=message):
        learn(options.pop("model"), options.pop("data"), options.pop("loss"), **options)


def test_the_bar_is_complete_when_a_run_ends_early():
    from bilevel.learning.progress import Progress

    with Progress(30, shown=True) as bar:
        bar.update(4)
        bar.finish(5)
        (task,) = bar._bar.tasks
        assert (task.completed, task.total) == (5, 5) and task.finished
