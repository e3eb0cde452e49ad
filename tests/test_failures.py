"""A solve, or an adjoint, that fails says so: as an error, a warning or not at all, as asked."""

import warnings

import pytest
import torch
from torch.autograd import functional

import bilevel as bl

F64 = torch.float64
A = torch.randn(7, 5, dtype=F64, generator=torch.Generator().manual_seed(1))
B = torch.randn(3, 7, dtype=F64, generator=torch.Generator().manual_seed(2))
IMAGE = torch.rand(1, 6, 6, dtype=F64, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def weight():
    return torch.tensor(0.1, dtype=F64, requires_grad=True)


def denoise(weight) -> bl.Problem:
    return bl.LeastSquares(IMAGE) + weight * bl.TotalVariation()


def lasso(weight) -> bl.Problem:
    return bl.LeastSquares(B) @ bl.Matrix(A) + weight * bl.L1()


LATE = (
    r"1 of 1 samples did not converge to tol = 1e-06: max_iter ended the loop after 5 steps of "
    r"PrimalDual with \w+ at a relative gap of .* and a relative residual of .*\. Raise max_iter"
)


@pytest.mark.parametrize("function", [bl.argmin, bl.solve])
def test_an_unconverged_solve_raises_warns_or_is_silent(weight, function):
    with pytest.raises(bl.NotConverged, match=LATE) as caught:
        function(denoise(weight), max_iter=5)
    solution = caught.value.solution
    assert solution.x.shape == IMAGE.shape and not solution.x.requires_grad
    assert solution.iterations.tolist() == [5] and solution.converged.tolist() == [False]
    with pytest.warns(bl.ConvergenceWarning, match=LATE) as said:
        function(denoise(weight), max_iter=5, on_fail="warn")
    assert said[0].filename == __file__  # the caller's line, not ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        function(denoise(weight), max_iter=5, on_fail="ignore")


def test_time_is_a_limit_too(weight):
    with pytest.raises(bl.NotConverged, match="max_time ended the loop after 10 steps"):
        bl.solve(denoise(weight), max_time=1e-9, tol=1e-12)


def test_the_samples_that_converged_are_told_apart():
    data = torch.stack([torch.zeros_like(IMAGE), IMAGE])
    energy = bl.LeastSquares(data) + 0.1 * bl.TotalVariation()
    with pytest.raises(bl.NotConverged, match="1 of 2 samples did not converge") as caught:
        bl.solve(energy, max_iter=20, tol=1e-10)
    assert caught.value.solution.converged.tolist() == [True, False]


def test_a_sample_that_diverges_leaves_the_others_alone():
    sign = torch.tensor([[1.0], [-1.0], [1.0]], dtype=F64)
    energy = bl.Potential(lambda x: (sign * (x - 1).square()).sum(1))  # no minimiser for sample 1
    start = torch.full((3, 4), 0.5, dtype=F64)
    message = "the iteration diverged: 1 of 3 samples are NaN or inf .* not bounded below"
    with pytest.raises(bl.NotConverged, match=message) as caught:
        bl.argmin(energy, x0=start)
    solution = caught.value.solution
    assert solution.converged.tolist() == [True, False, True]
    assert torch.allclose(solution.x[::2], torch.ones(2, 4, dtype=F64), atol=1e-7)
    with pytest.warns(bl.ConvergenceWarning, match="diverged"):
        x = bl.argmin(energy, x0=start, on_fail="warn")
    assert not x[1].square().sum().isfinite() and x[::2].isfinite().all()
    assert not x.requires_grad  # nothing behind it does


def test_a_step_between_one_and_two_over_the_lipschitz_constant_goes_without_momentum():
    step = 1.9 / float(torch.linalg.matrix_norm(A, 2) ** 2)
    x = bl.solve(lasso(0.5), solver=bl.ForwardBackward(step)).x
    assert torch.allclose(x, bl.solve(lasso(0.5)).x, atol=1e-5)


def linear(x):
    return x @ torch.ones(4, dtype=F64)


def test_an_x_that_the_first_step_leaves_at_0_has_not_run_away():
    g = torch.Generator().manual_seed(3)
    A, b = (torch.randn(*shape, generator=g, dtype=F64) for shape in ((6, 12), (1, 6)))
    b.requires_grad_()  # so the residual counts
    x = bl.argmin(bl.L1() + bl.L2Ball(0.1, b) @ bl.Matrix(A))  # basis pursuit: y moves first
    assert torch.allclose((x @ A.T - b).norm(), torch.tensor(0.1, dtype=F64))


@pytest.mark.parametrize(
    "energy",
    [bl.Potential(linear), bl.Potential(linear) + 0.1 * bl.L1()],
    ids=["linear", "linear and L1"],
)
def test_an_energy_without_a_minimiser_is_not_solved(energy):
    start = torch.zeros(2, 4, dtype=F64)
    with pytest.raises(bl.NotConverged, match=r"x has grown to .*: has the energy a minimiser\?"):
        bl.solve(energy, x0=start, max_iter=300)


def test_an_energy_not_bounded_below_diverges():
    energy = bl.Potential(lambda x: -x.square().sum(1))
    with pytest.raises(bl.NotConverged, match="2 of 2 samples are NaN or inf .* not bounded below"):
        bl.solve(energy, x0=torch.ones(2, 4, dtype=F64))


def test_constraints_without_a_common_point_are_not_met():
    energy = bl.LeastSquares(B) + bl.Box(0.9, 1.0) + bl.Simplex()
    with pytest.raises(bl.NotConverged, match="x violates a constraint still: have the constr"):
        bl.solve(energy, max_iter=500)


# The adjoint


def twins(data):
    """A lasso with two equal columns: only the sum of their coefficients is determined."""
    return bl.LeastSquares(data) @ bl.Matrix(torch.cat([A, A[:, :1]], 1)) + 0.1 * bl.L1()


def wide(data):
    return bl.LeastSquares(data) @ bl.Matrix(A[:3])


NOT_UNIQUE = "the adjoint system has no solution .* the problem does not determine"


@pytest.mark.parametrize(
    "energy, diff",
    [
        (twins, None),
        (twins, bl.FixedPoint(bl.GMRES())),
        (wide, None),
        (wide, bl.Implicit(bl.CG())),
        (wide, bl.FixedPoint(bl.GMRES())),
        (wide, bl.FixedPoint(bl.Dense())),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_a_loss_that_reads_what_is_not_determined_is_refused(energy, diff):
    data = B[:1, : 7 if energy is twins else 3].clone().requires_grad_()
    x = bl.argmin(energy(data), diff=diff)
    with pytest.raises(bl.NotUnique, match=NOT_UNIQUE):
        x[0, 0].backward()
    with pytest.warns(bl.ConvergenceWarning, match=NOT_UNIQUE) as said:
        bl.argmin(energy(data), diff=diff, on_fail="warn")[0, 0].backward()
    assert said[0].filename == __file__


def test_anderson_mixing_refuses_what_is_not_determined():
    """By whichever it meets first: where it wanders depends on rounding."""
    data = B[:1, :3].clone().requires_grad_()
    x = bl.argmin(wide(data), diff=bl.FixedPoint(bl.Anderson(max_iter=60)))
    with pytest.raises((bl.NotUnique, bl.NotConverged), match="the adjoint s"):
        x[0, 0].backward()


def test_a_loss_that_reads_what_is_determined_is_fine():
    data = B[:1].clone().requires_grad_()
    x = bl.argmin(twins(data), tol=1e-12)
    (gradient,) = torch.autograd.grad(x[0, 0] + x[0, 5], data)
    data = data.detach().requires_grad_()
    single = bl.argmin(bl.LeastSquares(data) @ bl.Matrix(A) + 0.1 * bl.L1(), tol=1e-12)
    (expected,) = torch.autograd.grad(single[0, 0], data)
    assert torch.allclose(gradient, expected, atol=1e-7)


def test_conjugate_gradients_do_not_blow_up_on_a_large_undetermined_problem():
    matrix = torch.randn(50, 200, dtype=F64)
    data = torch.randn(1, 50, dtype=F64, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(data) @ bl.Matrix(matrix))
    with pytest.raises(bl.NotUnique, match=NOT_UNIQUE):
        x[0, 0].backward()


def test_an_adjoint_that_ends_early_says_so(weight):
    diff = bl.FixedPoint(bl.GMRES(max_iter=2))
    message = "the adjoint solve ended at a relative residual of .*raise max_iter of the linear"
    with pytest.raises(bl.NotConverged, match=message):
        bl.argmin(lasso(weight), diff=diff).square().sum().backward()
    with pytest.warns(bl.ConvergenceWarning, match=message):
        bl.argmin(lasso(weight), diff=diff, on_fail="warn").square().sum().backward()


def test_a_loss_without_a_finite_gradient_says_so(weight):
    message = "gradient that reaches the solution is NaN or inf in 1 of 3 samples: the loss is not"
    cost = torch.tensor([[1.0], [float("nan")], [1.0]], dtype=F64)
    data = B.clone().requires_grad_()
    energy = bl.LeastSquares(data) @ bl.Matrix(A) + weight * bl.L1()
    with pytest.raises(bl.NotConverged, match=message):
        (cost * bl.argmin(energy)).sum().backward()
    with pytest.warns(bl.ConvergenceWarning, match=message):
        (cost * bl.argmin(energy, on_fail="warn")).sum().backward()
    assert data.grad[1].isnan().all() and data.grad[::2].isfinite().all()


def test_a_symmetric_solver_refuses_a_system_that_is_not(weight):
    x = bl.argmin(denoise(weight), diff=bl.FixedPoint(bl.CG()))
    with pytest.raises(TypeError, match=r"CG needs a symmetric operator.*Use GMRES\(\)"):
        x.sum().backward()


def test_derivatives_beyond_the_order_are_refused(weight):
    def cubic(**options):
        return bl.argmin(lasso(weight**2), **options).pow(3).sum()

    first = torch.autograd.grad(cubic(), weight, create_graph=True)
    second = torch.autograd.grad(first, weight, create_graph=True)
    with pytest.raises(RuntimeError, match=r"derivative 3 .*Pass diff=FixedPoint\(order=3\)"):
        torch.autograd.grad(second, weight)
    first = torch.autograd.grad(cubic(diff=bl.OneStep()), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="gives first derivatives only. Pass diff="):
        torch.autograd.grad(first, weight)


# Modes of autograd that would fail inside, or be wrong in silence


def loss(weight):
    return bl.argmin(lasso(weight)).square().sum()


@pytest.mark.parametrize(
    "transform", [torch.func.grad, torch.func.jacrev, torch.func.hessian, torch.func.vmap]
)
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch.func's own
def test_functional_transforms_are_refused(transform):
    point = torch.tensor([0.1, 0.2] if transform is torch.func.vmap else 0.1, dtype=F64)
    with pytest.raises(RuntimeError, match="cannot run inside torch.func .* Use torch.autograd"):
        transform(loss)(point)


def test_batched_cotangents_are_refused(weight):
    message = "no batched backward .* Call autograd.grad once for each cotangent"
    with pytest.raises(RuntimeError, match=message):
        functional.jacobian(lambda w: bl.argmin(lasso(w))[0], weight, vectorize=True)
    assert functional.jacobian(lambda w: bl.argmin(lasso(w))[0], weight).shape == (5,)


def test_inference_mode_has_no_gradient_of_a_function():
    energy = bl.Potential(lambda x: (x - 1).square().sum(1))
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"Use torch.no_grad\(\) inst"):
        bl.solve(energy, x0=torch.zeros(1, 3))


# hypergradient

HYPERGRADIENTS = [
    (lambda w: (3.0, [w]), TypeError, "needs a loss tensor, got float"),
    (lambda w: (bl.argmin(lasso(w)), [w]), ValueError, r"scalar loss, got shape \(3, 5\). Take"),
    (lambda w: (loss(w), []), ValueError, r"needs parameters, got none: pass model.parameters\(\)"),
    (lambda w: (loss(w), [w, 1.0]), ValueError, "parameter 1 of hypergradient is no tensor"),
    (lambda w: (loss(w), [w.detach()]), ValueError, "parameter 0 .* is a tensor without gradient"),
    (lambda w: ((2 * w).sum(), [w]), ValueError, "does not depend on a solution of argmin"),
    (lambda w: (bl.solve(lasso(w)).x.sum(), [w]), ValueError, "does not depend on a solution"),
]


@pytest.mark.parametrize(
    "make, error, message", HYPERGRADIENTS, ids=[m for *_, m in HYPERGRADIENTS]
)
def test_hypergradient_refuses(make, error, message, weight):
    with pytest.raises(error, match=message):
        bl.hypergradient(*make(weight))


def test_hypergradient_takes_a_single_tensor_too(weight):
    per_feature = torch.full((5,), 0.1, dtype=F64, requires_grad=True)
    (gradient,), _ = bl.hypergradient(loss(per_feature), per_feature)
    assert gradient.shape == (5,) and gradient.abs().sum() > 0
