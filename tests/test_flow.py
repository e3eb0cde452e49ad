"""The gradient flow and its learned stopping time."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.layers import GradientFlow

pytestmark = pytest.mark.usefixtures("float64")

Y = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
K = torch.randn(6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
KINDS = pytest.mark.parametrize("implicit", [False, True], ids=["explicit", "semi-implicit"])


def energy(weight=0.7, y=Y):
    ridges = bl.Potential(lambda x: (1 + (x @ K.T).square()).log().sum(1))
    return weight * bl.LeastSquares(y) + 0.2 * ridges


def at(flow, log_stop, *args):
    return torch.func.functional_call(flow, {"log_stop": log_stop}, args)


def test_the_steps_by_hand():
    x0 = torch.zeros(3, 6)
    for implicit, factor in ((False, 1 - 0.25 * 0.7), (True, 1 / (1 + 0.25 * 0.7))):
        flow = GradientFlow(2.0, 8, implicit=implicit)
        answer = (1 - factor**8) * Y
        assert torch.allclose(flow(0.7 * bl.LeastSquares(Y), x0), answer, atol=1e-12)
        assert len(flow.trajectory(0.7 * bl.LeastSquares(Y), x0)) == 9


@KINDS
def test_both_go_to_the_flow_itself_with_their_steps(implicit):
    """Of 0.7/2 |x - y|^2 from 0: (1 - exp(-0.7 t)) y."""
    answer = (1 - torch.tensor(-0.7 * 2.0).exp()) * Y
    errors = [
        (GradientFlow(2.0, n, implicit=implicit)(0.7 * bl.LeastSquares(Y), 0 * Y) - answer).norm()
        for n in (50, 100, 200)
    ]
    for coarse, fine in zip(errors, errors[1:], strict=False):
        assert 1.9 < coarse / fine < 2.1  # first order


@KINDS
def test_every_derivative_is_that_of_the_differences(implicit):
    flow = GradientFlow(1.5, 12, implicit=implicit)
    testing.gradients_agree(
        lambda log_stop, weight, y, x0: at(flow, log_stop, energy(weight, y), x0),
        [torch.tensor(0.4), torch.tensor(0.7), Y, torch.randn(3, 6)],
    )


@KINDS
def test_the_continuous_formula_is_off_by_the_step(implicit):
    target, off = torch.randn(3, 6), []
    for steps in (40, 80, 160):
        flow = GradientFlow(1.5, steps, implicit=implicit)
        x = flow(energy(), torch.zeros(3, 6))
        loss = (x - target).square().sum() / 2
        (slope,) = torch.autograd.grad(loss, flow.log_stop)
        slope = slope / flow.stop.detach()  # in T
        h, T = 1e-5, float(flow.stop.detach())
        ends = [
            (at(flow, torch.tensor(T + s * h).log(), energy(), 0 * x) - target).square().sum() / 2
            for s in (1, -1)
        ]
        assert abs(slope / ((ends[0] - ends[1]) / (2 * h)) - 1) < 1e-6
        continuous = -((x - target) * energy().f.grad(x)).sum()
        off.append(abs(float((continuous - slope).detach())))
    for coarse, fine in zip(off, off[1:], strict=False):
        assert 1.8 < coarse / fine < 2.2


def test_semi_implicit_steps_are_stable_where_explicit_ones_are_not():
    data = 50 * bl.LeastSquares(Y)
    assert (GradientFlow(10.0, 10, implicit=True)(data, 0 * Y) - Y).abs().max() < 1e-10
    with pytest.raises(
        bl.NotConverged, match="h = T / steps = 1 are too long: the energy rises in 3"
    ):
        GradientFlow(10.0, 10)(data, 0 * Y)
    with pytest.warns(bl.ConvergenceWarning, match="stable for h < 2 / L: take more of them"):
        x = GradientFlow(10.0, 10, on_fail="warn")(data, 0 * Y)
    assert x.abs().max() > 1e10
    lost = GradientFlow(1e4, 1000, on_fail="ignore")(data, 0 * Y)
    assert not lost.isfinite().all()
    with pytest.raises(bl.NotConverged, match="to (inf|nan)"):
        GradientFlow(1e4, 1000)(data, 0 * Y)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_that_are_stable_are_not_refused(implicit, dtype):
    """Up to the limit, at the minimiser, at rounding, from outside a constraint."""
    A = torch.randn(6, 6, generator=torch.Generator().manual_seed(3), dtype=dtype)
    L = float(torch.linalg.matrix_norm(A, 2) ** 2)
    misfit, y = bl.Potential(lambda x: (x @ A.T - 1).square().sum(1) / 2), Y.to(dtype)
    g = [1e-9 * bl.LeastSquares(y)] if implicit else []
    minimiser = torch.linalg.solve(A, torch.ones(6, 1, dtype=dtype)).mT.expand(3, 6)
    for x0 in (y, 0 * y, minimiser, 1e6 * y):
        for h in (1e-3 / L, 1.99 / L):
            for steps in (1, 2, 300):
                GradientFlow(h * steps, steps, implicit=implicit)(sum(g, misfit), x0)
    with pytest.raises(bl.NotConverged, match="too long"):
        GradientFlow(2.1 / L * 300, 300, implicit=implicit)(sum(g, misfit), y)
    if implicit:
        outside = torch.full_like(y, 5.0)
        GradientFlow(10 / L, 10, implicit=True)(misfit + bl.Box(-1.0, 1.0), outside)


def test_fields_and_energies_of_each_step_have_no_energy_that_could_rise():
    field = bl.VectorField(lambda x: -x)
    assert GradientFlow(1.0, 10)(field, Y).abs().max() > Y.abs().max()
    GradientFlow(10.0, 10)(lambda path: 50 * bl.LeastSquares(Y), 0 * Y)


def test_the_learned_time_satisfies_the_first_order_condition():
    clean = torch.linspace(0, 3, 6).sin().expand(3, 6)
    noisy = clean + 0.3 * torch.randn(3, 6)
    smooth = bl.LeastSquares() @ bl.Gradient(dims=1)
    flow = GradientFlow(0.05, 10)

    def loss():
        return (flow(smooth, noisy) - clean).square().sum()

    optimizer = torch.optim.LBFGS(flow.parameters(), line_search_fn="strong_wolfe", max_iter=50)

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert abs(torch.autograd.grad(loss(), flow.log_stop)[0]) < 1e-5
    best = float(loss().detach())
    for factor in (0.8, 1.2, 5.0):
        with torch.no_grad():
            flow.log_stop += torch.tensor(factor).log()
            assert loss() > best
            flow.log_stop -= torch.tensor(factor).log()


def test_what_it_cannot_follow_is_refused():
    with pytest.raises(TypeError, match="gradients, and L1 has none. Smooth it"):
        GradientFlow()(bl.LeastSquares(Y) + bl.L1())
    with pytest.raises(TypeError, match="one term by its prox, got 2"):
        GradientFlow(implicit=True)(bl.LeastSquares(Y) + bl.L1())
    with pytest.raises(TypeError, match="one term by its prox, got 0"):
        GradientFlow(implicit=True)(bl.LeastSquares(Y) @ bl.Matrix(K), 0 * Y)
    with pytest.raises(ValueError, match="positive, finite stopping time to start from, got -1"):
        GradientFlow(-1.0)
    with pytest.raises(ValueError, match="steps >= 1, got 0"):
        GradientFlow(1.0, 0)
    x = GradientFlow(implicit=True)(0.1 * bl.L1() + bl.LeastSquares(Y) @ bl.Matrix(K), 0 * Y)
    assert x.shape == Y.shape
