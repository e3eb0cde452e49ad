"""Weakly convex terms, and terms without a value, in solvers."""

import pytest
import torch

import bilevel as bl

pytestmark = pytest.mark.usefixtures("float64")

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(20, 8, dtype=torch.float64, generator=GENERATOR)
TRUE = torch.tensor([[2.0, -1.5, 0, 0, 0, 1.0, 0, 0]], dtype=torch.float64)
B = TRUE @ A.mT


@pytest.mark.parametrize(
    "term", [bl.MCP(0.4), bl.SCAD(0.4), 0.1 * bl.LogSum(0.1), 0.1 * bl.Geman(0.3), 0.5 * bl.L0()]
)
def test_sparse_regression_finds_the_support_with_less_bias_than_the_lasso(term):
    data = bl.LeastSquares(B) @ bl.Matrix(A)
    lasso = bl.solve(data + 0.4 * bl.L1()).x
    solution = bl.solve(data + term)
    assert ((solution.x != 0) == (TRUE != 0)).all()
    assert (solution.x - TRUE).norm() < 0.5 * (lasso - TRUE).norm()
    assert type(solution.acceleration) is bl.Plain and solution.gap is None


@pytest.mark.parametrize("term", [bl.MCP(0.2), bl.SCAD(0.2)])
def test_large_coefficients_are_those_of_least_squares(term):
    """Flat from width threshold on: no bias at all there."""
    x = bl.solve(bl.LeastSquares(B) @ bl.Matrix(A) + term, tol=1e-12).x
    torch.testing.assert_close(x, TRUE, rtol=1e-9, atol=1e-9)


def test_the_default_step_is_below_the_weak_convexity():
    y = torch.tensor([[0.2, 1.0, 3.0]])
    term = 4.0 * bl.MCP(0.3, 2.0)  # rho = 2 > L = 1
    solution = bl.solve(bl.LeastSquares(y) + term)
    assert float(solution.solver.step_size) < 0.5
    with pytest.raises(
        ValueError,
        match=r"step_size = 0.7 cannot converge: it must be below 1 / "
        r"rho, rho the weak convexity of MCP, = 0.5. Leave it out",
    ):
        bl.solve(bl.LeastSquares(y) + term, solver=bl.ForwardBackward(step_size=0.7))


def test_composed_weakly_convex_terms():
    """With 1-D differences and rho |D|^2 < 1 the energy is convex: two solvers' answers agree."""
    y = torch.tensor([[0.0, 0.1, 1.0, 1.1, 0.9, 0.0]])
    term = 0.3 * bl.MCP(0.5, 2.0)
    energy = bl.LeastSquares(y) + term @ bl.Gradient(dims=1)
    solution = bl.solve(energy, tol=1e-10)
    assert float(torch.as_tensor(solution.solver.dual_step_size).min()) >= 2 * 0.15
    D = torch.eye(6).diff(dim=0)
    for _ in range(200):  # nothing near is better
        u = solution.x + 0.05 * torch.randn(1, 6, generator=GENERATOR)
        assert (u - y).square().sum() / 2 + term.value(u @ D.mT) >= solution.value - 1e-12
    with pytest.raises(
        ValueError,
        match="dual_step_size = 0.1 cannot converge: it must be above "
        "0.15, the weak convexity of the composed terms",
    ):
        bl.solve(energy, solver=bl.PrimalDual(dual_step_size=0.1))
    with pytest.raises(ValueError, match="does not suit weakly convex terms"):
        bl.solve(energy, solver=bl.PrimalDual(preconditioned=True))


def test_the_derivative_sees_the_shape_of_the_penalty():
    """Firm threshold in closed form: x = (y - w k) / (1 - w / width) between the two kinks."""
    y = torch.tensor([[0.5, 1.0, 4.0, 0.1]], requires_grad=True)
    k, width = torch.tensor(0.4, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(y) + bl.MCP(k, width), tol=1e-12)
    x.sum().backward()
    inner = 1 / (1 - 1 / 3.0)
    torch.testing.assert_close(
        y.grad, torch.tensor([[inner, inner, 1.0, 0.0]]), rtol=1e-8, atol=1e-9
    )
    torch.testing.assert_close(k.grad, torch.tensor(-2 * inner), rtol=1e-8, atol=1e-9)


# Plug and play


def smoother(x):
    return 0.5 * x + 0.25 * (x.roll(1, -1) + x.roll(-1, -1))


def test_a_denoiser_is_solved_by_the_residual_and_says_so():
    y = torch.randn(2, 6, generator=GENERATOR)
    energy = bl.LeastSquares(y) + bl.PlugAndPlay(smoother)
    solution = bl.solve(energy, solver=bl.ForwardBackward(step_size=0.5), tol=1e-11)
    x = solution.x
    torch.testing.assert_close(smoother(0.5 * x + 0.5 * y), x, rtol=1e-9, atol=1e-9)
    assert solution.value.isnan().all() and solution.gap is None and solution.converged.all()
    assert "gap" not in str(solution.certificate)


def test_a_denoiser_with_a_function_behind_it_is_its_prox():
    y = torch.randn(2, 6, generator=GENERATOR)
    soft = bl.PlugAndPlay(lambda x, level: x - x.clamp(-level.square(), level.square()), True)
    x = bl.solve(bl.LeastSquares(y) + 0.3 * soft, solver=bl.ForwardBackward(step_size=0.5)).x
    torch.testing.assert_close(
        x, bl.solve(bl.LeastSquares(y) + 0.3 * bl.L1()).x, rtol=1e-6, atol=1e-7
    )


def test_a_network_is_differentiated_through():
    torch.manual_seed(0)
    net = torch.nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")
    with torch.no_grad():
        net.weight.mul_(0.4)
    y = torch.randn(2, 1, 6, generator=GENERATOR)

    def solution():
        energy = bl.LeastSquares(y) + bl.PlugAndPlay(net)
        return bl.argmin(energy, solver=bl.ForwardBackward(step_size=0.5), tol=1e-12)

    (gradient,) = torch.autograd.grad(solution().square().sum(), net.weight)
    d, h = torch.randn(1, 1, 3, generator=GENERATOR), 1e-5
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            net.weight.add_(sign * h * d)
        ends.append(solution().detach().square().sum())
        with torch.no_grad():
            net.weight.sub_(sign * h * d)
    assert float((gradient * d).sum()) == pytest.approx(
        float(ends[0] - ends[1]) / (2 * h), rel=1e-6
    )


def test_what_a_denoiser_cannot_do():
    y = torch.randn(2, 6, generator=GENERATOR)
    with pytest.raises(ValueError, match="step_size has no default with PlugAndPlay: no function"):
        bl.solve(bl.LeastSquares(y) + bl.PlugAndPlay(smoother))
    with pytest.raises(ValueError, match="dual_step_size has no default with PlugAndPlay"):
        energy = bl.LeastSquares(y) + bl.PlugAndPlay(smoother) @ bl.Gradient(dims=1)
        bl.solve(energy, solver=bl.PrimalDual(step_size=0.1))
    with pytest.raises(TypeError, match=r"PlugAndPlay\(denoiser\) has no weight"):
        0.3 * bl.PlugAndPlay(smoother)
    with pytest.raises(
        ValueError, match=r"weight has shape \(6,\) at x of shape \(2, 6\): a denoi"
    ):
        leveled = torch.ones(6) * bl.PlugAndPlay(lambda x, level: x, leveled=True)
        bl.solve(bl.LeastSquares(y) + leveled, solver=bl.ForwardBackward(step_size=0.5))
    with pytest.raises(TypeError, match="needs a denoiser, a function .* got int"):
        bl.PlugAndPlay(3)
    with pytest.raises(ValueError, match=r"returned shape \(2, 5\) for x of shape \(2, 6\)"):
        bl.solve(
            bl.LeastSquares(y) + bl.PlugAndPlay(lambda x: x[:, 1:]),
            solver=bl.ForwardBackward(step_size=0.5),
        )


def wells(theta):
    """x^4 / 4 - x^2 / 2 - theta x: two minima for |theta| < 2 / sqrt(27), where x^3 - x = theta."""
    return bl.Potential(lambda x: (x**4 / 4 - x**2 / 2 - theta * x).sum(1))


def branch(theta, start, tol):
    theta, report = theta.clone().requires_grad_(), bl.Certificate()
    x = bl.argmin(
        wells(theta), x0=torch.full_like(theta.detach(), start), tol=tol, report=report,
        solver=bl.GradientDescent(step_size=0.2), acceleration=bl.Plain(), max_iter=200_000,
    )  # fmt: skip
    (slope,) = torch.autograd.grad(x.sum(), theta)
    return x.detach(), slope, report


def test_each_start_has_its_branch_and_the_derivative_of_it():
    theta = torch.linspace(-0.35, 0.35, 8)[:, None]
    (left, *down), (right, *up) = (branch(theta, start, 1e-10) for start in (-1.5, 1.5))
    assert (left < -0.5).all() and (right > 0.5).all()
    for x, slope, _ in ((left, *down), (right, *up)):
        assert torch.allclose(x**3 - x, theta, atol=1e-8)
        assert torch.allclose(slope, 1 / (3 * x**2 - 1), rtol=1e-6)
    jumped, *_ = branch(torch.tensor([[0.4]]), -1.5, 1e-10)  # the left branch has ended
    assert jumped > 1


def test_an_inexact_solve_is_the_worse_the_nearer_the_branch_ends_and_says_so():
    near = 2 / 27**0.5 - torch.logspace(-0.5, -3, 8)[:, None]
    _, right, _ = branch(near, -1.5, 1e-12)
    _, slope, report = branch(near, -1.5, 1e-4)
    error = ((slope - right).abs() / right)[:, 0]
    assert error[-1] > 10 * error[0] and report.estimate[-1] > 10 * report.estimate[0]
