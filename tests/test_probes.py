"""hypergradient(probe=True) sees what no residual shows: kinks, and gradients that do not exist."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevel as bl
from references import REFERENCES

D = torch.float64


def weight(value: float = 0.5) -> torch.Tensor:
    return torch.tensor(value, dtype=D, requires_grad=True)


@pytest.mark.parametrize("isotropic", [True, False])
def test_a_singular_system_with_a_derivative_is_consistent(isotropic):
    """2-D TV: the dual is not unique, M is singular, the gradient exists."""
    y, w = torch.randn(2, 1, 8, 8, dtype=D), weight()
    x = bl.argmin(bl.LeastSquares(y) + w * bl.TotalVariation(isotropic=isotropic), tol=1e-12)
    _, certificate = bl.hypergradient(x.square().sum(), [w], probe=True)
    assert certificate.inconsistency < 1e-8 and certificate.influence < 1e-4


def test_a_kink_warns_and_tells_its_influence():
    """Soft threshold of (2, 0.5) at 0.5: on one side dx/dw = (-1, 0), on the other (-1, -1)."""
    w, y = weight(), torch.tensor([[2.0, 0.5, -0.1]], dtype=D)
    x = bl.argmin(bl.LeastSquares(y) + w * bl.L1())
    with pytest.warns(bl.KinkWarning, match=r"changes by 1\.0e\+00 .* only directional"):
        (g,), certificate = bl.hypergradient(x.sum(), [w], probe=True)
    assert certificate.influence == pytest.approx(1.0)
    assert float(g) == pytest.approx(-1) or float(g) == pytest.approx(-2)  # that of one side


def test_redundant_filters_off_zero_mean_have_no_derivative():
    """Two adjoint solutions, both of residual 1e-15, two gradients: only probe (b) tells."""
    torch.manual_seed(0)
    kernels = [torch.tensor([[t]], dtype=D) for t in ([-1.0, 1.0, 0.0], [1.0, -2.0, 1.0])]
    kernels = [k.requires_grad_() for k in kernels]
    h = [0.5 * bl.L1() @ bl.Convolution(k) for k in kernels]
    x = bl.argmin(bl.LeastSquares(torch.randn(1, 1, 20, dtype=D)) + h[0] + h[1], tol=1e-12)
    loss = x.square().sum()
    _, certificate = bl.hypergradient(loss, kernels, create_graph=True)
    assert float(certificate.adjoint_residual.max()) < 1e-10
    with pytest.raises(bl.NotUnique, match="two solutions of the adjoint system give gradients"):
        bl.hypergradient(loss, kernels, probe=True)


def test_a_loose_adjoint_is_not_taken_for_one_of_two():
    """Two answers to 3e-4 differ by more than rounding; a start far away tells them apart."""
    theta, exact = REFERENCES["lasso"].instance(0, margin=1e-4, rows=150, columns=300)
    A, b, w = (torch.tensor(theta[name], requires_grad=True) for name in ("A", "b", "w"))
    energy = bl.LeastSquares(b[None]) @ bl.Matrix(A) + w * bl.L1()
    x = bl.argmin(energy, tol=3e-3, solver=bl.ForwardBackward(), on_fail="ignore")
    target = torch.randn(300, dtype=D, generator=torch.Generator().manual_seed(0))
    loss = (x - target).square().sum() / 2
    found, certificate = bl.hypergradient(loss, [A, b, w], probe=True)
    assert certificate.inconsistency > 1e-4
    pulled = exact.vjp(exact.x - target.numpy())
    right = [torch.as_tensor(pulled[name]) for name in ("A", "b", "w")]
    for g, r in zip(found, right, strict=True):
        assert float((g - r).norm() / r.norm()) < 0.01


def test_a_loss_that_reads_a_non_unique_solution_is_refused():
    """A lasso with two equal columns."""
    torch.manual_seed(0)
    A, w = torch.randn(10, 4, dtype=D), weight(0.05)
    A = torch.cat([A, A[:, :1]], 1)
    x = bl.argmin(bl.LeastSquares(torch.randn(1, 10, dtype=D)) @ bl.Matrix(A) + w * bl.L1())
    with pytest.raises(bl.NotUnique, match="reads a part of the solution .* not determine"):
        bl.hypergradient(x[0, 0], [w])


@pytest.mark.parametrize("n", [20, 200], ids=["written out", "by products"])
def test_the_newton_step_left_is_the_error(n):
    """Of x, where T is slow in one direction and fast in others; without the probe."""
    scales, w = torch.logspace(0, -2, n, dtype=D), weight()
    A, b = bl.Matrix(torch.diag(scales)), torch.ones(2, n, dtype=D)
    x = bl.argmin(
        bl.LeastSquares(b) @ A + w * bl.LeastSquares(), x0=torch.zeros(2, n, dtype=D),
        solver=bl.GradientDescent(), acceleration=bl.Plain(), tol=1e-3, diff=bl.FixedPoint(),
    )  # fmt: skip
    exact = scales / (scales**2 + w.detach())
    _, certificate = bl.hypergradient(x.sum(), [w])
    error = (x.detach() - exact).norm(dim=1) / x.detach().norm(dim=1)
    torch.testing.assert_close(certificate.newton, error, rtol=0.02, atol=0)
    assert torch.equal(certificate.estimate, certificate.newton + certificate.adjoint_residual)


def test_of_a_dual_method_s_step_counts_what_the_gradient_sees():
    """Its x is not constant on the segments yet, but the gradient averages over them."""
    steps, seen, whole = torch.tensor([0.0, 2, 1, 3], dtype=D).repeat_interleave(20), [], []
    for seed in range(3):
        noise = torch.randn(80, generator=torch.Generator().manual_seed(seed), dtype=D)
        y = (steps + 0.3 * noise)[None].requires_grad_()
        energy = bl.LeastSquares(y) + 0.8 * bl.L1() @ bl.Gradient(1)

        def gradient(energy=energy, y=y, **options):
            x = bl.argmin(energy, **options)
            return bl.hypergradient(x.square().sum() / 2, [y])

        (exact,), _ = gradient(tol=1e-13)
        (found,), certificate = gradient(solver=bl.PrimalDual(), tol=1e-4, on_fail="ignore")
        error = (found - exact).norm() / exact.norm()
        seen.append(float(certificate.estimate / error))
        whole.append(float(certificate.newton / error))
    assert 0.5 < min(seen) and max(seen) < 4
    assert min(whole) > 3 * min(seen) and max(whole) > 3


def test_contraction_is_measured():
    """Gradient descent on |x - target|^2 / 2 with step 0.4 contracts by 0.6."""
    w, target = weight(1.0), torch.randn(1, 3, dtype=D)
    certificate = bl.Certificate()
    solver = bl.GradientDescent(step_size=0.4)
    bl.argmin(w * bl.LeastSquares(target), x0=torch.zeros(1, 3, dtype=D), solver=solver,
              acceleration=bl.Plain(), tol=1e-4, report=certificate)  # fmt: skip
    assert float(certificate.contraction) == pytest.approx(0.6, rel=1e-6)


KINKS = {
    "box": (lambda y, w: bl.LeastSquares(y) + bl.Box(0.0, w), [[2.0, 1.0, -0.3]], 2.0),
    "threshold": (lambda y, w: bl.LeastSquares(y) + w * bl.L1(), [[2.0, 1.0, -0.3]], 1.0),
    "simplex": (lambda y, w: bl.LeastSquares(y) + bl.Simplex(w), [[0.5, 0.5, 0.0]], 1.0),
    "ball": (lambda y, w: bl.LeastSquares(y) + bl.L2Ball(w), [[0.6, 0.8]], 1.0),
    "signal": (
        lambda y, w: bl.LeastSquares(y) + w * bl.TotalVariation(dims=1), [[0.0, 1.0, 1.0, 2.0]], 0.5
    ),
    "rank": (lambda y, w: bl.LeastSquares(y) + w * bl.Nuclear(), [[[2.0, 0.0], [0.0, 1.0]]], 1.0),
}  # fmt: skip


def at_kink(name, diff, loss=lambda x: (x * torch.linspace(0.5, 2, x.numel()).view_as(x)).sum()):
    energy, y, w = KINKS[name]
    y, w = torch.tensor(y, dtype=D).requires_grad_(), weight(w)
    return energy(y, w), bl.hypergradient(
        loss(bl.argmin(energy(y, w), diff=diff)), [y, w], probe=True
    )


@pytest.mark.parametrize("diff", [
    bl.FixedPoint(), bl.Implicit(), bl.Implicit(recompute=True), bl.PartlySmooth(), bl.OneStep(),
    bl.Truncated(50), None,
], ids=str)  # fmt: skip
@pytest.mark.parametrize("name", KINKS)
def test_every_strategy_sees_a_kink_of_a_denoising_problem(name, diff):
    """x - grad f(x) = y, the argument of the prox, does not move with x; the energy is tilted."""
    with pytest.warns(bl.KinkWarning):
        _, (_, certificate) = at_kink(name, diff)
    assert certificate.influence > 0.1
    if isinstance(diff, bl.OneStep | bl.Truncated):  # another start says nothing of a sum of terms
        assert certificate.inconsistency is None


def test_implicit_is_explained_as_at_a_kink():
    energy, y, w = KINKS["box"]
    told = bl.explain(energy(torch.tensor(y, dtype=D), w), strategy=bl.Implicit())
    assert {f.assumption: f.holds for f in told.findings}[
        "T is smooth around z (strict complementarity)"
    ] is False


def test_a_strategy_without_an_adjoint_system_has_no_probes():
    _, (_, certificate) = at_kink("box", bl.Unroll())
    assert certificate.influence is None and certificate.inconsistency is None


def game(payoff):
    """The value of a matrix game, for the player of the columns."""
    P = torch.tensor(payoff, dtype=D, requires_grad=True)
    columns = P.shape[-1]
    start = torch.full((1, columns), 1 / columns, dtype=D)
    return bl.minimum(bl.Largest() @ bl.Matrix(P) + bl.Simplex(), x0=start), P


def by_scipy(P):
    """min t with P x <= t, x on the simplex."""
    rows, columns = P.shape
    upper = np.hstack([P.numpy(), -np.ones((rows, 1))])
    total = np.append(np.ones(columns), 0.0)[None]
    bounds = [(0, None)] * columns + [(None, None)]
    return linprog(1 - total[0], upper, np.zeros(rows), total, [1.0], bounds).fun


TIES = {
    "columns": [[1.0, 1.0], [2.0, 2.0]],
    "rows": [[1.0, 2.0], [1.0, 2.0]],
    "both": [[1.0, 1.0], [1.0, 1.0]],
    "both, of value 0": [[0.0, 0.0], [0.0, 0.0]],
    "beside a third": [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -3.0]],
}


@pytest.mark.parametrize("name", TIES)
def test_the_value_of_a_game_with_ties_has_several_gradients(name):
    value, P = game(TIES[name])
    (plain,) = torch.autograd.grad(value.sum(), P, retain_graph=True)
    with pytest.warns(bl.KinkWarning, match="with the solution that is found: the least value has"):
        (gradient,), certificate = bl.hypergradient(value.sum(), [P], probe=True)
    assert certificate.influence > 0.1
    assert torch.equal(gradient, plain)
    step = 1e-4 * torch.arange(P.numel(), dtype=D).reshape(P.shape)
    sides = [by_scipy(P.detach() + s * step) - float(value.detach()) for s in (1, -1)]
    assert abs(sum(sides)) > 1e-5  # a kink, indeed


@pytest.mark.parametrize("payoff", [[[0.3, 0.95], [0.93, 0.7]], [[0.0, 1.0, 2.0], [1.0, 0.0, 0.0]]])
def test_the_value_of_a_game_without_ties_has_one(payoff):
    value, P = game(payoff)
    _, certificate = bl.hypergradient(value.sum(), [P], probe=True)
    assert certificate.influence < 1e-5


def test_several_solutions_with_one_gradient_are_no_kink():
    """The duals of total variation, and the x of a wide matrix, as far as the data are concerned.
    Of the matrix itself it is one."""
    y, w = torch.randn(2, 1, 6, 6, dtype=D, requires_grad=True), weight()
    value = bl.minimum(bl.LeastSquares(y) + w * bl.TotalVariation())
    _, certificate = bl.hypergradient(value.sum(), [y, w], probe=True)
    assert certificate.influence < 1e-5
    K = torch.tensor([[1.0, 1.0], [2.0, 2.0]], dtype=D, requires_grad=True)
    b = torch.tensor([[1.0, 0.0]], dtype=D, requires_grad=True)
    value = bl.minimum(
        bl.LeastSquares(b) @ bl.Matrix(K) + bl.Box(-9.0, 9.0), x0=torch.zeros(1, 2, dtype=D)
    )
    _, certificate = bl.hypergradient(value.sum(), [b], probe=True)
    assert certificate.influence < 1e-5
    with pytest.warns(bl.KinkWarning, match="several"):
        bl.hypergradient(value.sum(), [K], probe=True)


def test_another_valley_is_no_other_solution():
    a = torch.tensor(0.3, dtype=D, requires_grad=True)
    energy = bl.Potential(lambda x: ((x.square() - 1).square() + a * x).sum(1))
    x0 = torch.full((1, 1), -1.0, dtype=D)
    value = bl.minimum(energy, x0=x0, solver=bl.GradientDescent(step_size=0.01))
    _, certificate = bl.hypergradient(value.sum(), [a], probe=True)
    assert certificate.influence < 1e-5


@pytest.mark.parametrize("diff", [None, bl.PartlySmooth(), bl.Implicit()], ids=repr)
def test_a_gradient_of_zero_may_be_one_of_many(diff):
    """x = 0 is held by the kink of |x| and by the wall, which one of them moves: 0 <= dx <= 1."""
    wall = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    energy = bl.L1() + bl.Box(wall, torch.ones(1, 1, dtype=torch.float64))
    x = bl.argmin(energy, x0=torch.full((1, 1), 0.5, dtype=torch.float64), diff=diff)
    with pytest.raises(bl.NotUnique, match="the solution has no derivative"):
        bl.hypergradient(x.sum(), [wall], probe=True)


@pytest.mark.parametrize("diff", [None, bl.PartlySmooth(), bl.Implicit()], ids=repr)
def test_a_gradient_of_zero_is_mostly_one(diff):
    y = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(y) + bl.L1(), diff=diff)  # 0, far from any kink
    (gradient,), certificate = bl.hypergradient((x - 1).square().sum(), [y], probe=True)
    assert not gradient.any() and certificate.inconsistency == 0
