"""The adjoint beside the iteration: the gradient of FixedPoint, for the loss it was told."""

import pytest
import torch

import bilevel as bl
from problems import BY_NAME

pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated"  # torch's own, of forward mode
)

CASES = [
    ("ridge", None),
    ("lasso", None),  # Condat-Vu
    ("simplex_least_squares", None),
    ("tv1d_composed", bl.Accelerated()),
    ("tv1d_composed", bl.Halpern()),
    ("tv2d_anisotropic", bl.Plain()),
    ("l1_analysis_box", bl.Halpern()),
    ("simplex_below_a_bound", None),  # g, and a further term behind the identity
]


def gradients(example, diff, loss, **options):
    theta, _ = example.theta(batch=2)
    leaves = {k: v.clone().requires_grad_(k not in example.fixed) for k, v in theta.items()}
    x = bl.argmin(example.energy(leaves), solver=bl.PrimalDual(), diff=diff, **options)
    used = [v for v in leaves.values() if v.requires_grad]
    return x, torch.autograd.grad(loss.value(x).mean(), used)


def target(x):
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)


@pytest.mark.parametrize("name, acceleration", CASES, ids=str)
def test_it_is_the_gradient_of_the_fixed_point(name, acceleration):
    """Both are right to the tolerance times the condition number, up to 1e3 here."""
    tol = 1e-5 if isinstance(acceleration, bl.Accelerated) else 1e-7  # sublinear: short here
    example, options = BY_NAME[name], dict(acceleration=acceleration)
    x = bl.solve(example.energy(example.theta(batch=2)[0]), solver=bl.PrimalDual()).x
    loss = bl.LeastSquares(target(x))
    report = bl.Certificate()
    x, got = gradients(example, bl.Piggyback(loss), loss, report=report, tol=tol, **options)
    same, expected = gradients(example, bl.FixedPoint(), loss, tol=1e-12, **options)
    assert (x - same).norm() <= 1e3 * tol * same.norm()
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e3 * tol * max(g.norm() for g in expected)
    assert report.strategy == "Piggyback" and (report.adjoint_residual <= tol).all()


def tv(weight, y):
    return bl.LeastSquares(y) + weight * bl.TotalVariation()


@pytest.fixture
def leaves():
    y = torch.randn(1, 1, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return torch.tensor(0.2, dtype=torch.float64, requires_grad=True), y


def test_another_loss_is_refused(leaves):
    x = bl.argmin(tv(*leaves), diff=bl.Piggyback(bl.LeastSquares()), tol=1e-3)
    (0.5 * x.square().sum()).backward(retain_graph=True)  # this one
    (3 * x.square().sum()).backward(retain_graph=True)  # a multiple
    with pytest.raises(ValueError, match="Piggyback was told another loss"):
        x.sum().backward()


def test_second_derivatives_are_refused(leaves):
    weight, _ = leaves
    x = bl.argmin(tv(*leaves), diff=bl.Piggyback(bl.LeastSquares()), tol=1e-3)
    (first,) = torch.autograd.grad(0.5 * x.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="Piggyback gives first derivatives only"):
        first.backward()


def test_what_it_cannot_run_beside_is_refused(leaves):
    weight, y = leaves
    diff = bl.Piggyback(bl.LeastSquares())
    with pytest.raises(TypeError, match=r"Piggyback runs beside PrimalDual\(\) with two steps"):
        bl.argmin(bl.LeastSquares(y) + weight * bl.L1(), diff=diff)
    with pytest.raises(TypeError, match="with two steps"):
        bl.argmin(tv(weight, y), solver=bl.PrimalDual(preconditioned=True), diff=diff)
    with pytest.raises(TypeError, match="loss as a smooth term"):
        bl.Piggyback(bl.L1())
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="has none"):
        bl.argmin(tv(weight, y), diff=diff)


def test_nothing_to_differentiate_gives_the_solution(leaves):
    weight, y = leaves
    x = bl.argmin(tv(weight.detach(), y), diff=bl.Piggyback(bl.LeastSquares()), tol=1e-6)
    assert not x.requires_grad
    torch.testing.assert_close(x, bl.solve(tv(0.2, y), tol=1e-6).x, rtol=1e-3, atol=1e-4)


def test_a_loss_without_slope_has_no_gradient(leaves):
    """At its minimum: U = 0, and 0 / 0 nowhere."""
    weight, y = leaves
    x = bl.solve(tv(0.2, y), tol=1e-12).x
    loss = bl.LeastSquares(x)
    again = bl.argmin(tv(weight, y), diff=bl.Piggyback(0.0 * loss), tol=1e-6)
    (0.0 * again.square().sum()).backward()
    assert weight.grad == 0
