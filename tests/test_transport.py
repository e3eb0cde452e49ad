"""Optimal transport against POT, closed forms, differences, and known flows."""

import numpy as np
import ot
import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.warm_start import WarmStarts, warm_starts

pytestmark = pytest.mark.usefixtures("float64")


def clouds(n=5, m=7, batch=2):
    torch.manual_seed(4)
    x, y = torch.randn(batch, n, 2), torch.randn(batch, m, 2) + 1
    return x, y, torch.rand(batch, n).softmax(1), torch.rand(batch, m).softmax(1)


def costs(x, y):
    return (x[:, :, None] - y[:, None]).square().sum(3)


@pytest.mark.parametrize("rule", [bl.Plain(), bl.AndersonMixing(), bl.Broyden()], ids=repr)
def test_the_plan_is_that_of_pot(rule):
    x, y, a, b = clouds()
    cost = costs(x, y)
    plan = bl.sinkhorn(cost, a, b, blur=0.3, acceleration=rule, tol=1e-11)
    for k in range(2):
        theirs = ot.bregman.sinkhorn_log(a[k].numpy(), b[k].numpy(), cost[k].numpy(), 0.3,
                                         stopThr=1e-13, numItermax=100_000)  # fmt: skip
        assert torch.allclose(plan[k], torch.from_numpy(theirs), atol=1e-10)
    assert torch.allclose(plan.sum(2), a, atol=1e-12)  # met by construction
    assert torch.allclose(plan.sum(1), b, atol=1e-9)


def test_a_small_blur_overflows_nothing_and_nears_the_exact_plan():
    x, y, a, b = clouds()
    cost, exact = costs(x, y), bl.wasserstein2(x, y, a, b)
    off = [
        ((bl.sinkhorn(cost, a, b, blur=blur, tol=1e-9) * cost).sum((1, 2)) - exact).abs().max()
        for blur in (0.5, 0.1, 0.02)
    ]
    assert off[0] > off[1] > off[2] and off[2] < 1e-2
    far = bl.sinkhorn(1e4 * cost, a, b, blur=500.0, tol=1e-9)
    assert far.isfinite().all()


def test_the_plan_has_the_derivative_of_its_differences():
    x, y, a, b = clouds(4, 3)

    def plan(cost, log_a, log_b):  # masses that keep their sum
        return bl.sinkhorn(cost, log_a.softmax(1), log_b.softmax(1), blur=0.5, tol=1e-12)

    testing.gradients_agree(plan, [costs(x, y), a.log(), b.log()])


def test_the_exact_cost_and_its_gradients():
    x, y, a, b = clouds()
    value = bl.wasserstein2(x, y, a, b)
    for k in range(2):
        theirs = ot.emd2(a[k].numpy(), b[k].numpy(), costs(x, y)[k].numpy())
        assert abs(float(value[k]) - float(theirs)) < 1e-12
    testing.gradients_agree(
        lambda x, y, log_a, log_b: bl.wasserstein2(x, y, log_a.softmax(1), log_b.softmax(1)),
        [x, y, a.log(), b.log()],
    )
    shift = torch.tensor([3.0, -4.0])  # W_2^2 of a translation is its square
    assert torch.allclose(bl.wasserstein2(x, x + shift), torch.full((2,), 25.0))


def test_points_descend_to_a_target():
    """By the gradient of W_2^2 alone; a step 1/2 n reaches it at once."""
    x, y, _, _ = clouds(6, 6)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(bl.wasserstein2(x, y).sum(), x)
    assert bl.wasserstein2(x - 6 / 2 * slope, y).max() < 1e-20


def test_a_warm_start_saves_sweeps(monkeypatch):
    x, y, a, b = clouds()
    calls, logsumexp = [], torch.logsumexp

    def counted(*args):
        calls.append(1)
        return logsumexp(*args)

    monkeypatch.setattr(torch, "logsumexp", counted)
    store, counts = WarmStarts(), []
    for _ in range(2):
        calls.clear()
        with warm_starts(store, torch.arange(2)):
            bl.sinkhorn(costs(x, y), a, b, blur=0.1, tol=1e-8)
        counts.append(len(calls))
    assert counts[1] < counts[0] / 2


def quantiles(n):
    s = (torch.arange(n) + 0.5) / n
    return torch.distributions.Normal(0.0, 1.0).icdf(s)[None]


def test_jko_steps_of_the_heat_flow():
    """In one dimension a measure is its quantile function X, W_2^2 is |X - X_0|^2, and the entropy
    -mean log X'. A normal law stays normal: (s' - s) / tau = 1 / s' for its deviation s."""
    n, tau = 200, 0.05
    X, s = 0.5 * quantiles(n), 0.5
    difference = bl.Matrix((torch.eye(n).roll(1, 1) - torch.eye(n))[:-1])
    for _ in range(4):
        energy = bl.LeastSquares(X, weight=1 / tau) + bl.LogBarrier() @ difference
        X = bl.solve(energy, x0=X, solver=bl.ADMM(), tol=1e-7).x
        s = (s + (s * s + 4 * tau) ** 0.5) / 2
    middle = slice(20, 180)  # the tails, beyond the first and last quantile, are cut off
    assert torch.allclose(X[0, middle], s * quantiles(n)[0, middle], atol=0.02)


def test_jko_steps_of_the_porous_medium():
    """F = the integral of mu^2 is the mean of 1 / X'. Barenblatt's law (1 - (z / R)^2) 3 / (4 R)
    keeps its form: (R' - R) / tau = 3 / R'^2, and R^3 = 9 t in the limit of small steps."""
    n, tau, steps, start = 200, 0.02, 5, 0.1
    s = (torch.arange(n) + 0.5) / n
    form = 2 * ((2 * s - 1).asin() / 3).sin()[None]  # the law's quantiles for R = 1

    def spread(X):
        gaps = X.diff(dim=1)
        return torch.where(gaps > 0, 1 / (n * gaps.clamp_min(1e-300)), torch.inf).sum(1)

    R = (9 * start) ** (1 / 3)
    X = R * form
    for _ in range(steps):
        energy = bl.LeastSquares(X, weight=1 / tau) + bl.Potential(spread)
        X = bl.solve(energy, x0=X, solver=bl.Newton(), tol=1e-8).x
        R = np.roots([1, -R, 0, -3 * tau]).real.max()  # the other two are left of 0
    assert torch.allclose(X, R * form, atol=0.01)
    assert R == pytest.approx((9 * (start + steps * tau)) ** (1 / 3), rel=0.02)


def test_an_empty_batch_and_float32():
    x, y, _, _ = clouds()
    mass = torch.full((5,), 0.2), torch.full((7,), 1 / 7)
    assert bl.wasserstein2(x[:0], y[:0]).shape == (0,)
    assert bl.sinkhorn(costs(x, y)[:0], *mass, blur=0.1).shape == (0, 5, 7)
    single = bl.wasserstein2(x.float(), y.float())
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), bl.wasserstein2(x, y), rtol=1e-5)
    plan = bl.sinkhorn(costs(x, y).float(), *(m.float() for m in mass), blur=0.1)
    assert plan.dtype == torch.float32
    assert torch.allclose(plan.double(), bl.sinkhorn(costs(x, y), *mass, blur=0.1), atol=1e-4)


def test_masses_of_another_precision_and_costs_far_from_zero():
    x, y, _, _ = clouds()
    cost, mass = costs(x, y), (torch.full((5,), 0.2), torch.full((7,), 1 / 7))
    plan = bl.sinkhorn(cost, *mass, blur=0.1)
    single = bl.sinkhorn(cost, *(m.float() for m in mass), blur=0.1)
    assert single.dtype == cost.dtype and torch.allclose(single, plan, atol=1e-6)
    moved = bl.sinkhorn((cost + 2.0**20).float(), *(m.float() for m in mass), blur=0.1)
    assert torch.allclose(moved.sum(2), mass[0].float().expand(len(cost), -1), atol=1e-5)


def test_wrong_masses_and_costs_are_refused():
    cost, half = torch.ones(1, 2, 2), torch.tensor([0.5, 0.5])
    for a, message in [
        (torch.tensor([0.5, 0.6]), "must be positive and sum to 1"),
        (torch.tensor([1.0, 0.0]), "must be positive and sum to 1"),
        (torch.ones(3) / 3, r"a has shape \(3,\): masses \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            bl.sinkhorn(cost, a, half, blur=0.1)
    with pytest.raises(ValueError, match="Without it use wasserstein2"):
        bl.sinkhorn(cost, half, half, blur=0.0)
    with pytest.raises(ValueError, match=r"a cost \(B, n, m\) is needed, got \(2, 2\)"):
        bl.sinkhorn(cost[0], half, half, blur=0.1)
    with pytest.raises(ValueError, match="NaN or inf"):
        bl.sinkhorn(cost / 0, half, half, blur=0.1)
    with pytest.raises(ValueError, match="one number, got tensor"):
        bl.sinkhorn(cost, half, half, blur=torch.tensor([0.1, 0.2]))
    with pytest.raises(TypeError, match="a must be a torch tensor, got list"):
        bl.sinkhorn(cost, [0.5, 0.5], half, blur=0.1)
    with pytest.raises(ValueError, match=r"got \(2, 2\) and \(1, 2, 3\). For one pair"):
        bl.wasserstein2(cost[0], torch.ones(1, 2, 3))
