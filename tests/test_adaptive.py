"""AdaptiveInexact: the minimum, no tolerance, little work; and what it refuses."""

import math

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.learning import learn
from bilevel.learning.adaptive import _Point, _Trial
from learning_problem import (
    ONE,
    Denoiser,
    Quadratic,
    Signals,
    numbers,
    rosenbrock,
    squared_error,
)


class Images(nn.Module):
    """min_x |x - y|^2 / 2 + exp(log_weight) TV(x), isotropic."""

    def __init__(self, **options):
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(-5.0, dtype=torch.float64))
        self.options = options

    def forward(self, y):
        energy = bl.LeastSquares(y) + self.log_weight.exp() * bl.TotalVariation()
        return bl.argmin(energy, **self.options)


def images(count=2):
    generator = torch.Generator().manual_seed(0)
    clean = torch.zeros(count, 1, 12, 12, dtype=torch.float64)
    clean[..., 3:9, 4:8] = 1.0
    noise = torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return [{"clean": c, "noisy": c + 0.2 * n} for c, n in zip(clean, noise, strict=True)]


def work(result):
    return sum(row["lower_iterations"] + row["adjoint_products"] for row in result.history)


def learned(model=None, optimizer=bl.AdaptiveInexact, steps=30, **options):
    model = Images() if model is None else model
    return learn(
        model, images(), squared_error, optimizer=optimizer, steps=steps, progress=False, **options
    )


def test_a_loss_without_a_lower_level_is_minimised():
    result = learn(Quadratic(), ONE, rosenbrock, optimizer=bl.AdaptiveInexact, progress=False)
    assert abs(result.model.weight.item() - 1) < 1e-6
    assert result.steps < 40


def test_it_finds_the_weight_with_less_work_than_fixed_accuracy():
    result = learned()
    assert result.steps < 30  # it ended by itself
    with bl.accuracy(1e-4):
        fixed = learned(optimizer=None, steps=10)
    assert abs(result.model.log_weight - fixed.model.log_weight) < 1e-2
    assert work(result) < work(fixed)


@pytest.mark.parametrize("tol", [0.5, 1e-2, 1e-4])
def test_the_first_tolerance_hardly_matters(tol):
    result = learned(optimizer=lambda p: bl.AdaptiveInexact(p, tol=tol))
    assert abs(result.model.log_weight - learned().model.log_weight) < 1e-2


def test_every_step_lowers_the_true_loss():
    rows, true = learned().history, []
    batch = {k: torch.stack([image[k] for image in images()]) for k in ("clean", "noisy")}
    for row in rows:
        energy = bl.LeastSquares(batch["noisy"]) + math.exp(row["log_weight"]) * bl.TotalVariation()
        x = bl.solve(energy, tol=1e-9).x  # the last steps differ by 1e-5 of the loss
        true.append(float((x - batch["clean"]).square().mean()))
    assert all(after < before for before, after in zip(true, true[1:], strict=False))


def test_it_tightens_where_the_loss_is_flat():
    model = Images()
    nn.init.constant_(model.log_weight, -1.5)  # the best is -1.7
    gaps = [row["gap"] for row in learned(model).history]
    assert gaps[-1] < 0.1 * gaps[0]


def trial(*, decrease, doubt, slope, blur):
    """A step with t = 1 from a slope of -1 to one of -`slope`, that lowers the loss by so much."""
    here, there = (
        _Point(torch.zeros(1), 0.1, loss, doubt / 2, torch.tensor([g], dtype=torch.float64))
        for loss, g in ((0.0, 1.0), (-decrease, slope))
    )
    return _Trial(here, there, 1.0, blur)


@pytest.mark.parametrize(
    "lowers, shorter, known",
    [
        (True, 1.0, dict(decrease=0.5, doubt=0.1, slope=0.0, blur=math.inf)),
        (False, 1 / 3, dict(decrease=-0.5, doubt=0.1, slope=0.0, blur=math.inf)),
        # losses in doubt
        (False, 1.0, dict(decrease=0.5, doubt=1.0, slope=0.0, blur=math.inf)),
        (True, 1.0, dict(decrease=0.5, doubt=1.0, slope=0.0, blur=0.9)),
        (True, 1.0, dict(decrease=-0.5, doubt=1.0, slope=0.0, blur=0.9)),
        (False, 1.0, dict(decrease=0.5, doubt=1.0, slope=-0.5, blur=0.9)),
        (False, 1 / 3, dict(decrease=0.5, doubt=1.0, slope=-2.0, blur=0.9)),
        (False, 1.0, dict(decrease=0.5, doubt=1.0, slope=-2.0, blur=1.1)),
        # slopes do not overrule losses
        (False, 1 / 3, dict(decrease=-0.5, doubt=0.1, slope=0.5, blur=0.1)),
    ],
)
def test_what_losses_leave_in_doubt_the_slopes_tell(lowers, shorter, known):
    step = trial(**known)
    assert step.lowers == lowers
    assert step.shorter == pytest.approx(shorter)


@pytest.mark.parametrize("wrong", [1e-3, 1e3])
def test_a_first_gradient_that_is_an_error_does_no_harm(wrong):
    """1 + (θ - 1)^2 / 2 from 0: a loose solve has all in doubt, and the gradient times `wrong`."""

    class Inexact(bl.AdaptiveInexact):
        def _point(self, closure, tol):
            away, loose = 1 - self.theta, tol > 0.01
            loss, doubt = 1 + float(away.square()) / 2, 10.0 if loose else 1e-3
            return _Point(self.theta, tol, loss, doubt, -away * (wrong if loose else 1))

    theta = torch.zeros(1, dtype=torch.float64)
    optimizer = Inexact([theta])
    for _ in range(10):
        optimizer.step(lambda: None)
    assert abs(theta.item() - 1) < 0.05


def test_the_worst_case_gives_the_same_for_more_work():
    bounded = learned(optimizer=lambda p: bl.AdaptiveInexact(p, worst_case=True))
    estimated = learned()
    assert abs(bounded.model.log_weight - estimated.model.log_weight) < 5e-2
    assert work(bounded) > work(estimated)


def test_resumed_equals_uninterrupted(tmp_path):
    whole = learned(steps=5)
    assert len({row["loss"] for row in whole.history}) == 5
    learned(steps=2, out=tmp_path)
    assert numbers(learned(steps=5, out=tmp_path, resume=True)) == numbers(whole)


def test_batches_and_single_precision():
    model = Denoiser().float()
    data = [{k: v.float() for k, v in signal.items()} for signal in Signals()]
    options = dict(optimizer=bl.AdaptiveInexact, batch_size=2, steps=8, progress=False)
    result = learn(model, data, squared_error, **options)
    assert model.log_weight.item() > -2 and model.log_weight.dtype == torch.float32
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_a_plain_closure_will_do():
    model, (image,) = Images(), images(1)
    optimizer = bl.AdaptiveInexact(model.parameters())

    def closure():
        optimizer.zero_grad()
        loss = (model(image["noisy"][None]) - image["clean"]).square().mean()
        loss.backward()
        return loss.item()

    losses = [optimizer.step(closure) for _ in range(8)]
    assert losses[-1] < losses[0] / 2


def test_no_parameter_leaps():
    """A loss that falls without end: each step moves by up to ten times the first, no further."""
    model = Quadratic()
    visited = [3.0]
    options = dict(optimizer=bl.AdaptiveInexact, steps=6, progress=False)
    loss = lambda m, batch: -m.weight.square()  # noqa: E731
    learn(model, ONE, loss, on_step=lambda *_: visited.append(model.weight.item()), **options)
    moves = [b - a for a, b in zip(visited, visited[1:], strict=False)]
    assert moves[0] == pytest.approx(0.5) and max(moves) == pytest.approx(5.0)


def test_the_progress_tells_the_accuracy(capsys):
    learn(Images(), images(), squared_error, optimizer=bl.AdaptiveInexact, steps=2)
    shown = capsys.readouterr().out
    assert "lower level" in shown and "…" not in shown  # whole in 80 columns


@pytest.mark.parametrize(
    "message, run",
    [
        ("every solve in the loss names a tol", lambda: learned(Images(tol=1e-4))),
        ("Unroll solves none: pass diff=FixedPoint", lambda: learned(Images(diff=bl.Unroll()))),
        ("first_step > 0", lambda: bl.AdaptiveInexact([torch.ones(1)], first_step=0.0)),
        ("tightest <= tol <= 0.5", lambda: bl.AdaptiveInexact([torch.ones(1)], tol=1.0)),
        ("tightest <= tol <= 0.5", lambda: bl.AdaptiveInexact([torch.ones(1)], tol=1e-9)),
        (
            "one group of parameters",
            lambda: bl.AdaptiveInexact([{"params": torch.ones(1)}, {"params": torch.ones(2)}]),
        ),
    ],
)
def test_bad_input_is_told(message, run):
    with pytest.raises(ValueError, match=message):
        run()


def test_the_worst_case_needs_a_bound():
    class Lasso(Denoiser):
        def forward(self, y):
            A = bl.Matrix(torch.eye(20, dtype=torch.float64))
            return bl.argmin(bl.LeastSquares(y) @ A + self.log_weight.exp() * bl.L1())

    with pytest.raises(ValueError, match="worst_case=True needs a bound"):
        learn(
            Lasso(),
            Signals(),
            squared_error,
            optimizer=lambda p: bl.AdaptiveInexact(p, worst_case=True),
            progress=False,
        )
