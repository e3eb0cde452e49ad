"""Strategies: every derivative against the references', which are dense solves on active sets."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel import testing
from problems import BY_NAME, EXAMPLES
from registry import LINEAR_SOLVERS

SINGULAR = [e for e in EXAMPLES if e.singular]


def leaves_of(example, theta):
    return {k: v.clone().requires_grad_(k not in example.fixed) for k, v in theta.items()}


def gradient_error(example, seed=0, batch=2, solver=None, **options):
    """The largest relative error of a gradient of <g, x>, g random, over samples and parameters."""
    theta, answers = example.theta(seed, batch)
    leaves = leaves_of(example, theta)
    x = bl.argmin(example.energy(leaves), solver=solver, **{"tol": 1e-12, **options})
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    used = [k for k, v in leaves.items() if v.requires_grad]
    gradients = torch.autograd.grad((g * x).sum(), [leaves[k] for k in used])
    errors = []
    for k, gradient in zip(used, gradients, strict=True):
        for i, answer in enumerate(answers):
            expected = answer.vjp(g[i].numpy())[k]
            off = np.linalg.norm(gradient[i].numpy() - expected)
            errors.append(off / max(np.linalg.norm(expected), 1e-300))
    return max(errors)


every = pytest.mark.parametrize("example", EXAMPLES, ids=str)
exact = pytest.mark.parametrize("strategy", [bl.FixedPoint, bl.Implicit, bl.PartlySmooth])


@every
@exact
def test_the_gradient_is_the_reference(example, strategy):
    for solver in example.solvers:
        assert gradient_error(example, solver=solver(), diff=strategy()) <= 1e-8


@every
def test_the_defaults_give_the_gradient(example):
    """The solve's default tol, 1e-6, times the condition number of the problem, up to 1e3 here."""
    assert gradient_error(example, seed=3, tol=None) <= 1e-3


# A smooth problem's Hessian is symmetric; the equation of a projection is, in FB, as it happens.
SYMMETRIC = ("ridge", "logistic", "l2_ball_projection", "tv1d")
# The KKT residual of unit steps is no contraction: its series may diverge, and mixing be slow.
CASES = [
    (strategy(linear_solver), example)
    for strategy in (bl.FixedPoint, bl.Implicit)
    for linear_solver in LINEAR_SOLVERS
    for example in EXAMPLES
    if not (strategy is bl.Implicit and isinstance(linear_solver, (bl.Neumann, bl.Anderson)))
]


@pytest.mark.parametrize("strategy, example", CASES, ids=lambda v: v and str(v).split(", tol")[0])
def test_every_linear_solver_gives_the_gradient(strategy, example):
    chosen = bl.ForwardBackward if bl.ForwardBackward in example.solvers else example.solvers[-2]
    solver = chosen()
    if isinstance(strategy.linear_solver, bl.CG) and example.name not in SYMMETRIC:
        with pytest.raises(TypeError, match="CG needs a symmetric operator, and this one is not"):
            gradient_error(example, solver=solver, diff=strategy)
        return
    assert gradient_error(example, batch=1, solver=solver, diff=strategy) <= 1e-8


@every
def test_a_long_unrolling_from_the_solution_gives_the_gradient(example):
    diff = bl.Unroll(last=400, segment=100)
    assert gradient_error(example, batch=1, diff=diff) <= 1e-6


@every
def test_the_unrolled_run_gives_the_gradient(example):
    """It converges as the iterates do: to 1e-13 in the energy, to the root of that in x."""
    assert gradient_error(example, batch=1, diff=bl.Unroll(), tol=1e-13) <= 1e-3


@every
def test_segments_change_nothing_but_memory(example):
    a, b = (gradients_of(example, diff, tol=1e-6) for diff in (bl.Unroll(), bl.Unroll(segment=7)))
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def gradients_of(example, diff, **options):
    """Of <g, x>, g random: a loss that no constraint makes constant."""
    theta, _ = example.theta(batch=2)
    leaves = leaves_of(example, theta)
    x = bl.argmin(example.energy(leaves), diff=diff, **options)
    g = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    used = [v for v in leaves.values() if v.requires_grad]
    return torch.autograd.grad((g * x).sum(), used)


@every
def test_truncated_is_the_last_k_steps_unrolled(example):
    """To rounding, as long as the k steps from the solution stay on the manifold: they do."""
    for k in (1, 20):
        a, b = (gradients_of(example, d, tol=1e-12) for d in (bl.Truncated(k), bl.Unroll(last=k)))
        for p, q in zip(a, b, strict=True):
            assert (p - q).norm() <= 1e-9 * q.norm()


@pytest.mark.parametrize("name", ["ridge", "lasso", "tv1d_composed", "l1_analysis_box"])
@pytest.mark.parametrize("error", [1e-2, 1e-5])
def test_truncated_keeps_the_error_that_it_was_asked_for(name, error):
    """Of the adjoint; the gradient is a linear map of it, what is left an estimate."""
    example = BY_NAME[name]
    wanted = gradient_error(example, solver=bl.PrimalDual(), diff=bl.Truncated(error=error))
    assert wanted <= 20 * error


def test_a_series_that_is_too_long_is_told():
    def energy(b):
        A = torch.diag(torch.tensor([1.0, 1e-3], dtype=torch.float64))
        return bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()

    b = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    x = bl.argmin(energy(b), diff=bl.Truncated(error=1e-3), tol=1e-10)
    with pytest.raises(bl.NotConverged, match="the adjoint solve ended at a relative residual"):
        x.sum().backward()


@pytest.mark.parametrize("given", [{}, {"terms": 3, "error": 0.1}])
def test_truncated_takes_terms_or_an_error(given):
    with pytest.raises(ValueError, match="a number of terms or an error"):
        bl.Truncated(**given)


@every
def test_one_step_is_truncated_after_one(example):
    a, b = (gradients_of(example, diff) for diff in (bl.OneStep(), bl.Truncated(1)))
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_more_terms_have_less_bias():
    """The error is about the k-th power of the contraction, here 0.93."""
    errors = [gradient_error(BY_NAME["lasso"], diff=bl.Truncated(k)) for k in (1, 60, 120, 240)]
    assert errors[0] > 0.1
    assert all(b < a / 10 for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("example", SINGULAR, ids=str)
def test_the_gradient_exists_where_the_dual_is_not_unique(example):
    """I - dT/dz has a kernel here: the test is about nothing else."""
    theta, _ = example.theta()
    solution = bl.solve(example.energy(theta), tol=1e-14)
    z = solution.solver.assemble(None, solution.x, solution.dual)
    flat = torch.cat([part.flatten() for part in z])

    def T(flat):
        parts = flat.split([part.numel() for part in z])
        parts = tuple(p.reshape(q.shape) for p, q in zip(parts, z, strict=True))
        stepped = solution.solver.step(example.energy(theta), parts)
        return torch.cat([part.flatten() for part in stepped])

    M = torch.eye(len(flat), dtype=flat.dtype) - torch.autograd.functional.jacobian(T, flat)
    assert torch.linalg.svdvals(M)[-1] <= 1e-12
    assert gradient_error(example, diff=bl.FixedPoint(bl.GMRES())) <= 1e-8


@pytest.mark.parametrize("dims, isotropic", [(1, True), (2, True), (2, False), (3, False)])
def test_total_variation_with_all_kinds_of_weights(dims, isotropic):
    """Scalar, per sample, per pixel or edge: against central differences of solutions."""
    y = torch.randn(2, 1, *([2] * dims if dims == 3 else [3] * dims), dtype=torch.float64)

    density = y.shape if dims > 1 else (2, 1, 2)
    for shape in ((), (2, *[1] * (dims + 1)), density):
        weight = 0.1 + 0.1 * torch.rand(shape, dtype=torch.float64)

        def solution(y, weight):
            term = bl.TotalVariation(dims=dims, isotropic=isotropic)
            return bl.argmin(bl.LeastSquares(y) + weight * term, tol=1e-12)

        parameters = (y, weight) if not shape else (weight,)
        rest = () if not shape else (y,)
        testing.gradients_agree(lambda *p, r=rest: solution(*r, *p), parameters, 1e-6, h=1e-5)


def test_the_derivative_of_1d_tv_averages_over_segments():
    """It is not the identity, which is what unconverged subgradient loops give."""
    theta, answers = BY_NAME["tv1d"].theta(n=30)
    x = answers[0].x
    y = theta["y"].clone().requires_grad_()
    z = bl.argmin(bl.LeastSquares(y) + theta["w"][:, None] * bl.TotalVariation(dims=1), tol=1e-12)
    segment = np.cumsum(np.append(0, np.abs(np.diff(x)) > 1e-9))
    same = torch.from_numpy(segment[:, None] == segment[None]).double()
    averaging = same / same.sum(1, keepdim=True)
    assert 1 < len(set(segment)) < 30
    for i in (0, 7, 29):
        (row,) = torch.autograd.grad(z[0, i], y, retain_graph=True)
        torch.testing.assert_close(row[0], averaging[i], rtol=0, atol=1e-10)


def test_a_hessian_of_condition_1e6_is_solved_beyond_conjugate_gradients():
    """200 unknowns: x = s b / (s^2 + w), dx/dw = -x / (s^2 + w)."""
    s, w = torch.logspace(0, -3, 200, dtype=torch.float64), torch.tensor(1e-6, dtype=torch.float64)
    b, g = torch.randn(2, 1, 200, dtype=torch.float64)
    w.requires_grad_()
    energy = bl.LeastSquares(b) @ bl.Matrix(torch.diag(s)) + w * bl.LeastSquares()
    x = bl.argmin(energy, x0=torch.zeros_like(b), diff=bl.Implicit(), tol=1e-12)
    (found,) = torch.autograd.grad((x * g).sum(), w)
    stiff = s**2 + w.detach()
    torch.testing.assert_close(found, -(g * s * b / stiff**2).sum(), rtol=1e-8, atol=0)


def test_a_loss_that_reads_a_dual_that_is_not_unique_is_refused():
    """Two equal l1 terms share one dual: their sum is determined, the shares are not. x is."""
    y = torch.tensor([[1.0, 0.1, -2.0]], dtype=torch.float64, requires_grad=True)
    energy = bl.LeastSquares(y) + 0.3 * bl.L1() @ bl.Identity() + 0.2 * bl.L1() @ bl.Identity()
    x = bl.argmin(energy, solver=bl.PrimalDual(), tol=1e-12)
    (gradient,) = torch.autograd.grad(x.sum(), y)
    torch.testing.assert_close(gradient, torch.tensor([[1.0, 0, 1]], dtype=torch.float64))
    flat = bl.LeastSquares(y) @ bl.Matrix(torch.ones(3, 3, dtype=torch.float64)) + bl.Box(-9.0, 9.0)
    x = bl.argmin(flat, x0=torch.zeros(1, 3, dtype=torch.float64), diff=bl.FixedPoint())
    torch.autograd.grad(x.sum(), y, retain_graph=True)  # the sum is determined
    with pytest.raises(
        bl.NotUnique, match="the loss reads a part of the solution that the problem"
    ):
        x[0, 0].backward()


def test_on_fail_covers_the_adjoint_solve():
    theta, _ = BY_NAME["lasso"].theta()

    def backward(on_fail):
        leaves = leaves_of(BY_NAME["lasso"], theta)
        diff = bl.FixedPoint(bl.GMRES(max_iter=2))
        report = bl.Certificate()
        energy = BY_NAME["lasso"].energy(leaves)
        x = bl.argmin(energy, diff=diff, on_fail=on_fail, report=report)
        x.sum().backward()
        return float(report.adjoint_residual)

    with pytest.raises(bl.NotConverged, match="the adjoint solve ended at a relative residual of"):
        backward("raise")
    with pytest.warns(bl.ConvergenceWarning, match="raise max_iter of the linear solver"):
        backward("warn")
    assert backward("ignore") > 1e-3


def test_bad_options_are_refused():
    for strategy, match in (
        (lambda: bl.FixedPoint(order=0), "order must be 1 or more, got 0"),
        (lambda: bl.Implicit(order=-1), "order must be 1 or more, got -1"),
        (lambda: bl.Truncated(0), "Truncated needs at least 1 term, got 0"),
        (lambda: bl.Unroll(last=0), "Unroll needs last >= 1, got 0"),
        (lambda: bl.Unroll(segment=0), "Unroll needs segment >= 1, got 0"),
    ):
        with pytest.raises(ValueError, match=match):
            strategy()


def test_laws_that_are_broken_say_so():
    """One step is no gradient, and the laws see it; they need float64."""
    y = torch.tensor([[1.0, 0.2, -2.0]], dtype=torch.float64)
    A = torch.tensor([[1.0, 0.5, 0.2], [0.1, 2.0, 0.3], [0.2, 0.4, 1.5]], dtype=torch.float64)

    def biased(y):
        return bl.argmin(bl.LeastSquares(y) @ bl.Matrix(A) + 0.1 * bl.L1(), diff=bl.OneStep())

    with pytest.raises(
        AssertionError, match="gradients_agree is broken for parameter 0: .* by aut"
    ):
        testing.gradients_agree(biased, (y,))
    with pytest.raises(AssertionError, match="gradcheck is broken: Jacobian mismatch for output 0"):
        testing.gradcheck(biased, (y,))
    with pytest.raises(TypeError, match=r"differences need float64 parameters, got torch.float32"):
        testing.gradients_agree(biased, (y.float(),))
