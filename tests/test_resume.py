"""Resuming: the same numbers with and without an interruption, whatever interrupts."""

import importlib
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.learning import Interrupted, learn, read_config, read_metrics, read_model
from learning_problem import (
    ONE,
    Denoiser,
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

learn_module = importlib.import_module("bilevel.learning.learn")

OPTIMIZERS = {
    "default": None,
    "LBFGS": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe", max_iter=3),
    "LBFGS, fixed step": lambda p: torch.optim.LBFGS(p, lr=0.3, max_iter=2, history_size=2),
    "SGD": sgd,
    "Adam": lambda p: torch.optim.Adam(p, lr=0.05, amsgrad=True),
    "AdamW, foreach": lambda p: torch.optim.AdamW(p, lr=0.05, foreach=True),
    "Adam, lr a tensor": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.05)),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "Adadelta": lambda p: torch.optim.Adadelta(p),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.05),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.05, t0=2),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.05),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.05),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.5),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.05),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.05),
    "AdaptiveInexact": bl.AdaptiveInexact,
    # `Shrink` drifts by its warm starts: small steps are lost in that
    "GradientSampling": lambda p: bl.GradientSampling(p, radius=1.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("batch_size", [None, 3])
def test_resumed_equals_uninterrupted(tmp_path, name, batch_size):
    # a line search needs a function: no random numbers where it sees the whole data
    loss = noisy_error if batch_size else squared_error
    options = dict(optimizer=OPTIMIZERS[name], batch_size=batch_size, loss=loss)
    whole = run(steps=7, **options)
    run(tmp_path, steps=3, **options)
    resumed = run(tmp_path, steps=7, resume=True, model=Shrink(9.0), **options)
    assert numbers(resumed) == numbers(whole)
    assert len({row["loss"] for row in whole.history}) == 7  # it was not standing still
    rows = read_metrics(tmp_path)
    assert [row["loss"] for row in rows] == [row["loss"] for row in whole.history]
    saved = read_model(tmp_path)
    assert all(saved[k].equal(v) for k, v in resumed.model.state_dict().items())


def test_without_its_warm_starts_a_resumed_run_would_differ(tmp_path, monkeypatch):
    whole = run(steps=7, optimizer=sgd)
    run(tmp_path, steps=3, optimizer=sgd)
    monkeypatch.setattr("bilevel.warm_start.WarmStarts.load_state_dict", lambda *_: None)
    resumed = run(tmp_path, steps=7, resume=True, optimizer=sgd)
    assert numbers(resumed) != numbers(whole)


def test_a_finished_run_resumes_to_itself(tmp_path):
    result = learn(Quadratic(), ONE, rosenbrock, progress=False, out=tmp_path)
    again = learn(Quadratic(), ONE, rosenbrock, progress=False, out=tmp_path, resume=True)
    assert numbers(again) == numbers(result)


def test_resume_without_a_run_starts_one(tmp_path, capsys):
    result = run(tmp_path / "new", resume=True, progress=True)
    assert numbers(result) == numbers(run())
    assert "No checkpoint in" in capsys.readouterr().out


def failing(after, error):
    """The loss, which fails once after so many evaluations."""
    left = [after]

    def loss(model, batch):
        left[0] -= 1
        if left[0] == -1:
            raise error
        return squared_error(model, batch)

    return loss


@pytest.mark.parametrize("optimizer", ["SGD", "LBFGS", "default"])
def test_ctrl_c_saves_the_last_completed_step(tmp_path, optimizer):
    make = OPTIMIZERS[optimizer]
    model = Shrink()
    with pytest.raises(Interrupted, match=r"Interrupted\. Step \d is saved in .* resume=True"):
        run(tmp_path, model=model, optimizer=make, loss=failing(6, KeyboardInterrupt()))
    rows = read_metrics(tmp_path)
    assert 0 < len(rows) < 10
    assert read_model(tmp_path)["bias"].equal(model.bias)  # the model is not left in mid-step
    assert numbers(run(tmp_path, optimizer=make, resume=True)) == numbers(run(optimizer=make))


def test_ctrl_c_without_a_folder_leaves_a_whole_model():
    model = Shrink()
    with pytest.raises(Interrupted, match="The model is as it was after step 4"):
        run(model=model, optimizer=sgd, loss=failing(4, KeyboardInterrupt()))
    assert (
        numbers(run(optimizer=sgd, steps=4))[1]
        == numbers(SimpleNamespace(model=model, history=[]))[1]
    )


def test_another_error_is_annotated(tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        run(tmp_path, optimizer=sgd, loss=failing(4, ZeroDivisionError()))
    assert "Step 4 is saved in" in caught.value.__notes__[0]


class Explode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, value):
        ctx.value = value
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * ctx.value, None


@pytest.mark.parametrize("bad", ["loss", "gradient", "step"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_the_run_and_is_never_written(tmp_path, bad, value):
    calls = []

    def loss(model, batch):
        calls.append(1)
        if len(calls) > 3 and bad == "gradient":
            model = SimpleNamespace(bias=Explode.apply(model.bias, value))
            return model.bias.square().sum() + model.bias.sum()
        error = squared_error(model, batch)
        return error * value if len(calls) > 3 and bad == "loss" else error

    class Leap(torch.optim.SGD):
        def step(self, closure):  # type: ignore[override]
            super().step(closure)
            if len(calls) > 3 and bad == "step":
                with torch.no_grad():
                    self.param_groups[0]["params"][1].fill_(value)

    what = {
        "loss": "the loss is not finite",
        "gradient": "the gradient of parameter 'bias' is not finite",
        "step": "the optimizer's step made parameter 'bias' not finite",
    }[bad]
    only_bias = Shrink()
    only_bias.log_weight.requires_grad_(bad == "step")
    count = 1 if bad == "loss" else 6
    pattern = rf"Step 4: {what} \({count} of {count} values, the first is {value}\)"
    with pytest.raises(FloatingPointError, match=pattern) as caught:
        run(tmp_path, model=only_bias, loss=loss, optimizer=lambda p: Leap(p, lr=0.05))
    assert "Step 3 is saved" in caught.value.__notes__[0]
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert read_model(tmp_path)["bias"].isfinite().all() and only_bias.bias.isfinite().all()


@pytest.mark.parametrize(
    "batch_size, optimizer", [(None, None), (2, None), (None, bl.GradientSampling)]
)
def test_a_denoiser_learns_and_resumes_to_the_last_digit(tmp_path, batch_size, optimizer):
    def learn_denoiser(out, steps, **options):
        options = {"progress": False, "batch_size": batch_size, "steps": steps, **options}
        options["optimizer"] = optimizer
        return learn(Denoiser(), Signals(), squared_error, out=out, **options)

    whole = learn_denoiser(None, 6)
    learn_denoiser(tmp_path, 3)
    resumed = learn_denoiser(tmp_path, 6, resume=True)
    assert numbers(resumed) == numbers(whole)
    first, last = whole.history[0], whole.history[-1]
    assert last["loss"] < first["loss"] and first["log_weight"] == -3.0
    assert first["gap"] <= 1e-6 and first["adjoint_residual"] <= 1e-6
    assert json.loads((tmp_path / "certificate.json").read_text())["gap"] <= 1e-6  # the default tol


@pytest.mark.parametrize(
    "change, message",
    [
        ({"seed": 1}, "began with seed=0 and cannot be resumed with seed=1"),
        ({"batch_size": 4}, "began with batch_size=3 and cannot be resumed with batch_size=4"),
        ({"optimizer": sgd}, r"began with optimizer=Adam\(lr=0.01.* resumed with optimizer=SGD\("),
        (
            {"model": Shrink().double()},
            r"with log_weight=torch.float32 \(\) and .* log_weight=torch.float64",
        ),
    ],
)
def test_another_run_is_not_resumed(tmp_path, change, message):
    run(tmp_path, steps=1, batch_size=3)
    before = read_config(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, resume=True, **{"batch_size": 3, **change})
    assert read_config(tmp_path) == before


def test_an_optimizer_that_does_not_restore_is_told(tmp_path):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.ones(2))
            self.b = nn.Parameter(torch.ones(2, dtype=torch.float64))

    def loss(model, batch):
        return ((model.a - 2).double().square() + (model.b - 3) ** 2).sum()

    # L-BFGS keeps flat vectors in float64, but loads them in the first parameter's float32
    learn(Mixed(), ONE, loss, steps=1, progress=False, out=tmp_path)
    with pytest.raises(ValueError, match="LBFGS does not load .* give all parameters one dtype"):
        learn(Mixed(), ONE, loss, steps=2, progress=False, out=tmp_path, resume=True)


def test_checkpoints_wait_for_their_price(tmp_path, monkeypatch):
    saves = []
    original = learn_module.RunFolder.save
    monkeypatch.setattr(
        learn_module.RunFolder,
        "save",
        lambda self, step, *rest: (saves.append(step), original(self, step, *rest)),
    )
    run(tmp_path / "a", optimizer=sgd)
    assert saves[0] == 0 and saves[-1] == 10 and len(saves) < 11
    saves.clear()
    monkeypatch.setattr(learn_module, "PATIENCE", 0)
    run(tmp_path / "b", optimizer=sgd)
    assert saves == list(range(11))
