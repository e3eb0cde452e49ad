"""minimum: against closed forms, SciPy, and differences of values that `solve` and SciPy found."""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import bilevel as bl
from bilevel.testing import gradgradcheck

TIGHT = {"tol": 1e-10}


def draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


W, R = torch.tensor(0.3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
LO, HI = -draw(2, 5, seed=7).abs() - 0.1, draw(2, 5, seed=8).abs() + 0.1
IMAGE = draw(2, 1, 5, 4, seed=6)
ZEROS = {"x0": torch.zeros(2, 5, dtype=torch.float64)}


def misfit(A, b):
    return bl.LeastSquares(b) @ bl.Matrix(A)


# name: (energy, theta, options, whether x is unique)
CASES = {
    "lasso": (
        lambda w, A, b: misfit(A, b) + w * bl.L1(),
        (W, draw(8, 5), draw(2, 8, seed=1)),
        {},
    ),
    "lasso, fewer rows": (
        lambda w, A, b: misfit(A, b) + w * bl.L1(),
        (W, draw(3, 5), draw(2, 3, seed=1)),
        {},
    ),
    "ridge": (
        lambda w, A, b: misfit(A, b) + w * bl.LeastSquares(),
        (W, draw(8, 5), draw(2, 8, seed=1)),
        {},
    ),
    "tv": (lambda w, y: bl.LeastSquares(y) + w * bl.TotalVariation(), (W, IMAGE), {}),
    "tv per sample": (
        lambda w, y: bl.LeastSquares(y) + w * bl.TotalVariation(isotropic=False),
        (torch.tensor([0.2, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1), IMAGE),
        {},
    ),
    "tv1d": (
        lambda w, y: bl.LeastSquares(y) + w * bl.TotalVariation(dims=1),
        (W, draw(2, 9, seed=3)),
        {},
    ),
    "moving box": (
        lambda A, b, lo, hi: misfit(A, b) + bl.Box(lo, hi),
        (draw(8, 5), 2 * draw(2, 8, seed=1), LO, HI),
        {},
    ),
    "simplex": (
        lambda A, b, total: misfit(A, b) + bl.Simplex(total),
        (draw(8, 5), draw(2, 8, seed=1), torch.tensor(1.3, dtype=torch.float64)),
        {},
    ),
    "ball": (
        lambda y, r, c: bl.LeastSquares(y) + bl.L2Ball(r, c),
        (3 * draw(2, 5, seed=1), W, draw(2, 5, seed=2)),
        {},
    ),
    "data at kinks": (
        lambda K, y, b: bl.LeastSquares(y) + 2.0 * bl.Absolute(b) @ bl.Matrix(K),
        (draw(7, 5), draw(2, 5, seed=1), draw(2, 7, seed=2)),
        {},
    ),
    "box behind K": (
        lambda K, y, r: bl.LeastSquares(y) + bl.Box(-r, r) @ bl.Matrix(K),
        (draw(7, 5), draw(2, 5, seed=1), R),
        {},
    ),
    "analysis and a box": (
        lambda w, K, y, lo, hi: w * bl.L1() @ bl.Matrix(K) + bl.LeastSquares(y) + bl.Box(lo, hi),
        (W, draw(7, 5), 3 * draw(2, 5, seed=1), LO, HI),
        {},
    ),
    "linear program": (
        lambda K, b, lo, hi: bl.Absolute(b) @ bl.Matrix(K) + bl.Box(lo, hi),
        (draw(7, 5), draw(2, 7, seed=2), LO + 0.5, HI + 0.5),
        ZEROS,
    ),
    "weakly convex": (
        lambda w, y: bl.LeastSquares(y) + w * bl.MCP(0.5, 3.0),
        (W, draw(2, 5, seed=1)),
        {},
    ),
    "nuclear": (
        lambda w, y: bl.LeastSquares(y) + w * bl.Nuclear(),
        (W, draw(2, 4, 3, seed=1)),
        {},
    ),
}  # fmt: skip
SMOOTH_ENOUGH = [name for name in CASES if name not in ("linear program", "lasso, fewer rows")]


@pytest.mark.parametrize("name", CASES)
def test_the_value_is_the_energy_at_the_solution(name):
    energy, theta, options = CASES[name]
    value, solution = (f(energy(*theta), **options, **TIGHT) for f in (bl.minimum, bl.solve))
    assert value.shape == (2,)
    if name == "box behind K":  # x lies outside by rounding: its energy is inf
        assert solution.value.isinf().any()
        expected = (solution.x - theta[1]).square().sum(1) / 2
    else:
        expected = solution.value
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=1e-9)


def differences(energy, theta, i: int, d: Tensor, options, h: float = 1e-4) -> float:
    """Of the values that `solve` found, fourth order; without the lagrangian of `minimum`, except
    where the energy at the solution is inf."""

    def value(t: float) -> float:
        moved = [p + t * d if j == i else p for j, p in enumerate(theta)]
        found = bl.solve(energy(*moved), **options, tol=1e-12).value
        if found.isinf().any():
            found = bl.minimum(energy(*moved), **options, tol=1e-12)
        return float(found.sum())

    return (8 * (value(h / 2) - value(-h / 2)) - (value(h) - value(-h))) / (6 * h)


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_that_of_the_values(name):
    energy, theta, options = CASES[name]
    leaves = [p.clone().requires_grad_() for p in theta]
    report = bl.Certificate()
    value = bl.minimum(energy(*leaves), **options, **TIGHT, report=report)
    gradients = torch.autograd.grad(value.sum(), leaves)
    assert report.adjoint_iterations is None  # none was solved
    for i, (p, gradient) in enumerate(zip(theta, gradients, strict=True)):
        d = draw(*p.shape, seed=11 + i)
        expected = differences(energy, theta, i, d, options)
        assert float((gradient * d).sum()) == pytest.approx(expected, rel=1e-6, abs=1e-7), i


@pytest.mark.parametrize("name", SMOOTH_ENOUGH)
def test_the_second_derivative(name):
    energy, theta, options = CASES[name]
    f = lambda *p: bl.minimum(energy(*p), **options, tol=1e-12)  # noqa: E731
    gradgradcheck(f, theta, fast_mode=True)


def test_the_second_derivative_with_every_strategy():
    energy, theta, _ = CASES["lasso"]
    for diff in (bl.FixedPoint(), bl.Implicit(), bl.Unroll(last=400)):
        f = lambda *p, diff=diff: bl.minimum(energy(*p), diff=diff, tol=1e-12)  # noqa: E731
        gradgradcheck(f, theta, fast_mode=True)


@pytest.mark.parametrize("diff", [bl.Truncated(5), bl.OneStep()])
def test_a_biased_strategy_has_the_right_gradient_and_refuses_the_second(diff):
    energy, theta, _ = CASES["lasso"]
    leaves = [p.clone().requires_grad_() for p in theta]
    got, expected = (
        torch.autograd.grad(
            bl.minimum(energy(*leaves), **TIGHT, diff=d).sum(), leaves, create_graph=True
        )
        for d in (diff, None)
    )
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)
    with pytest.raises(RuntimeError, match="first derivatives only. Pass diff=FixedPoint"):
        torch.autograd.grad(got[0].sum(), leaves)


def test_the_third_derivative_is_refused():
    energy, theta, _ = CASES["lasso"]
    w = theta[0].clone().requires_grad_()
    g = bl.minimum(energy(w, *theta[1:]), **TIGHT).sum()
    for _ in range(2):
        (g,) = torch.autograd.grad(g, w, create_graph=True)
    with pytest.raises(RuntimeError, match="derivative 3 of a solution was asked for"):
        torch.autograd.grad(g, w)


# Closed forms


def test_distance_to_a_set():
    """p = 1/2 dist^2, dp/dy = y - projection; into a disc also in its centre and radius."""
    y, c = (3 * draw(4, 5, seed=s) for s in (0, 1))
    y, c, r = y.requires_grad_(), c.requires_grad_(), torch.tensor(0.8, dtype=torch.float64)
    r.requires_grad_()
    value = bl.minimum(bl.LeastSquares(y) + bl.L2Ball(r, c), **TIGHT)
    distance = ((y - c).norm(dim=1) - r).clamp(min=0)
    torch.testing.assert_close(value, distance.square() / 2)
    got = torch.autograd.grad(value.sum(), (y, c, r))
    expected = torch.autograd.grad(distance.square().sum() / 2, (y, c, r))
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_the_weight_of_tv_has_the_total_variation_as_derivative():
    w = W.clone().requires_grad_()
    x = bl.solve(bl.LeastSquares(IMAGE) + 0.3 * bl.TotalVariation(), **TIGHT).x
    value = bl.minimum(bl.LeastSquares(IMAGE) + w * bl.TotalVariation(), **TIGHT)
    (got,) = torch.autograd.grad(value.sum(), w)
    torch.testing.assert_close(got, bl.TotalVariation().value(x).sum(), rtol=1e-7, atol=0)


def test_the_derivative_in_K_is_y_x():
    K = draw(7, 5).requires_grad_()
    energy = bl.LeastSquares(draw(1, 5, seed=1)) + bl.L1() @ bl.Matrix(K)
    solution = bl.solve(energy, solver=bl.PrimalDual(), tol=1e-12)
    (got,) = torch.autograd.grad(bl.minimum(energy, tol=1e-12).sum(), K)
    torch.testing.assert_close(got, torch.outer(solution.dual[0][0], solution.x[0]))


def test_a_linear_program_as_scipy_values_it():
    """min |Kx - b|_1 over a box, its gradient in b by HiGHS's own multipliers."""
    K, b = draw(7, 5), draw(1, 7, seed=2).requires_grad_()
    lo, hi = torch.full((1, 5), -0.4).double(), torch.full((1, 5), 0.7).double()
    value = bl.minimum(bl.Absolute(b) @ bl.Matrix(K) + bl.Box(lo, hi), x0=ZEROS["x0"][:1], **TIGHT)
    k, eye = K.numpy(), np.eye(7)
    A = np.block([[k, -eye], [-k, -eye]])
    right = np.concatenate([b.detach().numpy()[0], -b.detach().numpy()[0]])
    bounds = [(-0.4, 0.7)] * 5 + [(0, None)] * 7
    cost = np.concatenate([np.zeros(5), np.ones(7)])
    found = scipy.optimize.linprog(cost, A, right, bounds=bounds)
    assert float(value.detach()) == pytest.approx(found.fun, rel=1e-8)
    (got,) = torch.autograd.grad(value.sum(), b)
    first, second = found.ineqlin.marginals[:7], found.ineqlin.marginals[7:]
    np.testing.assert_allclose(got[0].numpy(), first - second, atol=1e-7)


def test_no_unique_x_is_needed():
    """Two equal columns: x is not unique, the value is, and so is its gradient."""
    a, b = draw(6, 1), draw(1, 6, seed=1)
    A = torch.cat([a, a], 1).requires_grad_()
    w = W.clone().requires_grad_()
    value = bl.minimum(misfit(A, b) + w * bl.L1(), **TIGHT)
    grad_w = torch.autograd.grad(value.sum(), w)[0]
    inner = float((a[:, 0] * b[0]).sum().abs())
    size = (inner - 0.3) / float(a.square().sum())  # |x|_1 of the one column
    assert size > 0 and float(grad_w) == pytest.approx(size, rel=1e-7)


# What it does not do, and how it says so


def test_hypergradient_brings_the_certificate():
    w = W.clone().requires_grad_()
    value = bl.minimum(bl.LeastSquares(IMAGE) + w * bl.TotalVariation(), **TIGHT)
    (gradient,), certificate = bl.hypergradient(value.sum(), [w], probe=True)
    assert certificate.converged.all() and certificate.gap.shape == (2,)
    assert certificate.inconsistency is None and gradient > 0  # no adjoint was solved


def test_without_gradients():
    w = W.clone().requires_grad_()
    with torch.no_grad():
        value = bl.minimum(bl.LeastSquares(IMAGE) + w * bl.TotalVariation())
    assert not value.requires_grad and value.shape == (2,)


def test_an_empty_batch_and_single_precision():
    assert bl.minimum(bl.LeastSquares(torch.zeros(0, 3)) + bl.L1()).shape == (0,)
    y = torch.tensor([[2.0, 0.5]], requires_grad=True)
    value = bl.minimum(bl.LeastSquares(y) + 1.0 * bl.L1())
    assert value.dtype == torch.float32 and float(value.detach()) == pytest.approx(1.5 + 0.125)
    assert torch.autograd.grad(value.sum(), y)[0].tolist() == [[1.0, 0.5]]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_scales(scale):
    y = (scale * draw(2, 5)).requires_grad_()
    value = bl.minimum(bl.LeastSquares(y) + 0.3 * scale * bl.L1(), **TIGHT)
    rest = y.clamp(-0.3 * scale, 0.3 * scale)
    (got,) = torch.autograd.grad(value.sum(), y)
    torch.testing.assert_close(got / scale, rest.detach() / scale, rtol=1e-9, atol=1e-9)


def test_terms_without_a_value_or_a_continuous_prox_are_refused():
    y = draw(1, 5)
    with pytest.raises(TypeError, match="continuous prox, which L0 has not"):
        bl.minimum(bl.LeastSquares(y) + 0.1 * bl.L0())
    plug = bl.PlugAndPlay(lambda x: x / 2)
    with pytest.raises(TypeError, match="continuous prox, which PlugAndPlay has not"):
        bl.minimum(bl.LeastSquares(y) + plug, solver=bl.ForwardBackward(step_size=0.5))


def test_forward_mode_is_refused():
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="autograd.grad"):
        bl.minimum(bl.LeastSquares(draw(1, 5)) + 0.1 * bl.L1())


def test_it_fails_as_argmin_does():
    with pytest.raises(bl.NotConverged):
        bl.minimum(bl.LeastSquares(IMAGE) + bl.TotalVariation(), max_iter=3, tol=1e-12)
    with pytest.warns(bl.ConvergenceWarning):
        value = bl.minimum(
            bl.LeastSquares(IMAGE) + bl.TotalVariation(), max_iter=3, tol=1e-12, on_fail="warn"
        )
    assert all(map(math.isfinite, value))
