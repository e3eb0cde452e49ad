"""learn: any optimizer, the same numbers with and without interruption, and clear errors."""

import importlib
import json
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.differentiation import Certificate
from bilevel.learning import Interrupted, learn, read_config, read_metrics, read_model
from bilevel.learning import learner as learner_module
from bilevel.learning.batches import Batches
from learning_problem import Pairs, Shrink, noisy_error, numbers, run, sgd, squared_error

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
}


class Quadratic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))


def rosenbrock(model, batch):
    w = model.weight
    return ((1 - w) ** 2 + 5 * (w**2 - 1) ** 2) * batch["scale"].mean()


ONE = [{"scale": torch.tensor(1.0, dtype=torch.float64)}]


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
    result = run(tmp_path, steps=2, optimizer=OPTIMIZERS["LBFGS"])
    row = result.history[0]
    assert row["gap"] == pytest.approx(3e-9) and row["residual"] == pytest.approx(2e-8)
    assert row["adjoint_residual"] is None
    assert row["evaluations"] > 1 and row["lower_iterations"] == 30 * row["evaluations"]
    assert read_metrics(tmp_path) == result.history
    stored = json.loads((tmp_path / "certificate.json").read_text())
    assert stored["step"] == 2 and stored["gap"] == pytest.approx(3e-9)
    assert stored["solver"] == "PrimalDual" and stored["influence"] == "inf"  # strict JSON
    again = run(tmp_path, steps=2, resume=True, optimizer=OPTIMIZERS["LBFGS"]).certificate
    assert again.as_dict() == result.certificate.as_dict()


class Denoiser(nn.Module):
    """min_x |x - y|^2 / 2 + exp(log_weight) TV(x), solved and differentiated by the library."""

    def __init__(self):
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(-3.0, dtype=torch.float64))

    def forward(self, y):
        return bl.argmin(bl.LeastSquares(y) + self.log_weight.exp() * bl.TotalVariation(dims=1))


class Signals(list):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        clean = torch.randn(4, 4, generator=generator, dtype=torch.float64).repeat_interleave(5, 1)
        noise = torch.randn(4, 20, generator=generator, dtype=torch.float64)
        super().__init__(
            {"clean": c, "noisy": c + 0.3 * n} for c, n in zip(clean, noise, strict=True)
        )


@pytest.mark.parametrize("batch_size", [None, 2])
def test_a_denoiser_learns_and_resumes_to_the_last_digit(tmp_path, batch_size):
    def learn_denoiser(out, steps, **options):
        options = {"progress": False, "batch_size": batch_size, "steps": steps, **options}
        return learn(Denoiser(), Signals(), squared_error, out=out, **options)

    whole = learn_denoiser(None, 6)
    learn_denoiser(tmp_path, 3)
    resumed = learn_denoiser(tmp_path, 6, resume=True)
    assert numbers(resumed) == numbers(whole)
    first, last = whole.history[0], whole.history[-1]
    assert last["loss"] < first["loss"] and first["log_weight"] == -3.0
    assert first["gap"] <= 1e-8 and first["adjoint_residual"] <= 1e-6
    assert json.loads((tmp_path / "certificate.json").read_text())["gap"] <= 1e-8


def test_warm_starts_save_iterations(monkeypatch):
    class Images(Denoiser):  # isotropic total variation, which takes its time
        def forward(self, y):
            energy = bl.LeastSquares(y) + self.log_weight.exp() * bl.TotalVariation()
            return bl.argmin(energy, tol=1e-6)

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
