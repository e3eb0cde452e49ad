"""InteriorPoint, Newton, DirectProx: solvers that certify their answer by a T of their own."""

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevel as bl
from bilevel import testing
from bilevel.iteration.looks import Looking
from problems import BY_NAME
from test_strategies import gradient_error

D = torch.float64
inf = torch.inf
LS, Box, Matrix = bl.LeastSquares, bl.Box, bl.Matrix


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


y, b, C, h = drawn(4, 12), drawn(4, 9, seed=1), drawn(4, 5, 12, seed=2), drawn(4, 5, seed=3).abs()
A = drawn(9, 12, seed=4)

PROGRAMS = {
    "polytope": LS(y) + Box(-inf, h) @ Matrix(C),
    "between": LS(y) + Box(-h, h) @ Matrix(C),
    "equations": LS(y) + Box(h, h) @ Matrix(C),
    "equations, bounds": LS(y)
    + bl.NonNegative()
    + Box(h[:, :2], h[:, :2]) @ Matrix(C[:, :2].abs()),
    "simplex, bound": LS(3 * y) + bl.Simplex() + Box(-inf, 0.3),
    "bound, simplex": LS(3 * y) + Box(-inf, 0.3) + bl.Simplex(),
    "of K x": LS(y) + bl.NonNegative() @ Matrix(drawn(6, 12)),
    "simplex of K x": LS(y) + bl.Simplex() @ Matrix(drawn(6, 12)),
    "monotone": LS(y) + bl.NonNegative() @ bl.Gradient(dims=1),
    "a fixed coordinate": LS(y) + Box(0.0, torch.tensor([0.0] * 3 + [0.5] * 9, dtype=D)),
    "nothing active": LS(0.1 * y) + Box(-9.0, 9.0),
    "no bounds": LS(y) + Box(-inf, inf),
    "half-space": LS(y) + bl.NonNegative() + bl.HalfSpace(C[:, 0], -0.5),
    "hyperplane": LS(y) + bl.Hyperplane(C[0, 0], h[:, :1]) + Box(-0.4, inf),
    "hyperplane, box": LS(y) + bl.HyperplaneBox(C[:, 0].abs(), 1.0),
    "affine": LS(y) + bl.Affine(C, h) + Box(-1.0, 1.0),
    "quadratic": bl.Quadratic(C.mT @ C + torch.eye(12, dtype=D), y) + bl.Simplex(),
    "singular, box": LS(b) @ Matrix(A) + Box(-0.3, 0.4),
    "singular, simplex": LS(b) @ Matrix(A) + bl.Simplex(),
    "weights": h[:, :1] * LS(y) + y.abs() * LS(2 * y) + bl.Simplex(h[:, :1] + 0.5),
    "redundant rows": LS(y) + Box(-inf, torch.cat([h, h], 1)) @ Matrix(torch.cat([C, C], 1)),
    "rows of zeros": LS(y) + Box(-inf, h) @ Matrix(0 * C),
    "the tip of the cone": LS(0 * y) + bl.NonNegative(),
    "one unknown": LS(y[:, :1]) + bl.NonNegative(),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_optimality_conditions_hold_to_rounding(name):
    energy = PROGRAMS[name]
    x0 = torch.zeros(4, 1 if name == "one unknown" else 12, dtype=D)
    solution = bl.solve(energy, x0=x0, solver=bl.InteriorPoint())
    slow = 1e3 if "singular" in name else 1  # where T contracts by 1e-8 of the mean curvature
    for part in energy.kkt(solution.x, solution.dual):
        assert part.abs().max() <= 1e-12 * slow
    assert (solution.iterations <= 60).all() and solution.certificate.solver == "InteriorPoint"


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_interior_point_does_not_know_units(scale):
    unit, scaled = (
        bl.solve(LS(s * b) @ Matrix(A.T[:9, :5]) + Box(-0.2 * s, 0.2 * s),
                 x0=torch.zeros(4, 5, dtype=D), solver=bl.InteriorPoint())
        for s in (1.0, scale)
    )  # fmt: skip
    torch.testing.assert_close(scaled.x, scale * unit.x, rtol=1e-9, atol=1e-12 * scale)


def brute_force(y, C, h):
    """The projection of y on C x <= h: the best of all active sets."""
    best, least = None, np.inf
    for k in range(len(h) + 1):
        for rows in map(list, combinations(range(len(h)), k)):
            w = np.linalg.lstsq(C[rows] @ C[rows].T, C[rows] @ y - h[rows], rcond=None)[0]
            x = y - C[rows].T @ w
            if (C @ x <= h + 1e-10).all() and np.sum((x - y) ** 2) < least:
                best, least = x, np.sum((x - y) ** 2)
    return best


def test_projections_on_polytopes_are_those_of_all_active_sets_tried():
    x = bl.solve(PROGRAMS["polytope"], solver=bl.InteriorPoint()).x
    for i in range(4):
        expected = brute_force(*(part[i].numpy() for part in (y, C, h)))
        np.testing.assert_allclose(x[i].numpy(), expected, atol=1e-9)


def test_a_batch_of_programs_is_its_samples():
    def energy(index):
        return LS(y[index]) + Box(-h[index], h[index]) @ Matrix(C[index])

    testing.batch_is_alone(energy, 4, ulp=64, solver=bl.InteriorPoint())  # blocks of products


def test_every_parameter_of_a_program_has_its_derivatives():
    def solution(A, b, h, C):
        energy = LS(b) @ Matrix(A) + Box(-h, h) @ Matrix(C)
        x0 = torch.zeros(1, 3, dtype=D)
        return bl.argmin(energy, x0=x0, solver=bl.InteriorPoint(), tol=1e-12)

    parameters = drawn(1, 6, 3), 3 * drawn(1, 6), 0.2 + drawn(1, 4).abs(), drawn(1, 4, 3, seed=5)
    testing.gradcheck(solution, parameters)
    testing.gradgradcheck(solution, parameters)


def test_the_adjoint_of_a_newton_step_is_one_product():
    target = y.clone().requires_grad_()
    report = bl.Certificate()
    x = bl.argmin(LS(target) + bl.Simplex(), solver=bl.InteriorPoint(), report=report)
    x.square().sum().backward()
    assert report.adjoint_iterations == 1 and (report.adjoint_residual <= 1e-12).all()


def test_float32_programs():
    solution = bl.solve(LS(y.float()) + bl.Simplex(), solver=bl.InteriorPoint())
    exact = bl.solve(LS(y) + bl.Simplex(), solver=bl.InteriorPoint())
    assert solution.x.dtype == torch.float32
    torch.testing.assert_close(solution.x.double(), exact.x, rtol=0, atol=1e-6)


def test_an_empty_batch():
    for solver in (bl.InteriorPoint(), bl.DirectProx(), bl.DouglasRachford()):
        assert bl.solve(LS(y[:0]) + bl.Simplex(), solver=solver).x.shape == (0, 12)
    assert bl.solve(LS(y[:0]), solver=bl.Newton()).x.shape == (0, 12)


def test_linear_programs():
    energy = (
        bl.Quadratic(torch.zeros(12, 12, dtype=D), y) + Box(-1.0, 2.0) + Box(-inf, h) @ Matrix(C)
    )
    x = bl.argmin(energy, solver=bl.InteriorPoint())
    for k in range(4):
        found = linprog(*(part[k].numpy() for part in (y, C, h)), bounds=(-1, 2))
        np.testing.assert_allclose(x[k], found.x, atol=1e-9)


TOTALS = Matrix(torch.ones(2, 12, dtype=D))
APART = {
    "bounds": bl.NonNegative() + Box(-inf, -1.0) @ TOTALS,
    "equations": Box(*2 * [torch.tensor([0.0, 1.0], dtype=D)]) @ TOTALS,
}


@pytest.mark.parametrize("name", APART)
def test_constraints_without_a_common_point_are_not_solved(name):
    with pytest.raises(bl.NotConverged, match="of InteriorPoint"):
        bl.solve(LS(y) + APART[name], solver=bl.InteriorPoint())


def test_a_kink_under_a_program_is_found():
    target = torch.tensor([[0.0, 1.0]], dtype=D, requires_grad=True)
    x = bl.argmin(LS(target) + bl.NonNegative(), solver=bl.InteriorPoint())
    with pytest.warns(bl.KinkWarning):
        bl.hypergradient(x.sum(), [target], probe=True)


@pytest.mark.parametrize(
    "diff", [bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth()], ids=lambda d: type(d).__name__
)
def test_what_a_singular_problem_leaves_open_has_no_derivative(diff):
    """The sum of x is determined, x is not; a slight regularisation inside must not hide it."""
    target = torch.tensor([[1.0, 0.1, -2.0]], dtype=D, requires_grad=True)
    f, x0 = LS(target) @ Matrix(torch.ones(3, 3, dtype=D)), torch.zeros(1, 3, dtype=D)
    for energy, solver in ((f + Box(-9.0, 9.0), bl.InteriorPoint()), (f, bl.Newton())):
        x = bl.argmin(energy, x0=x0, solver=solver, diff=diff)
        (gradient,) = torch.autograd.grad(x.sum(), target, retain_graph=True)
        torch.testing.assert_close(gradient, torch.full((1, 3), 1 / 3, dtype=D))
        with pytest.raises(bl.NotUnique):
            torch.autograd.grad(x[0, 0], target)


@pytest.mark.parametrize("solver", [bl.InteriorPoint(), bl.DirectProx()], ids=repr)
def test_external_solvers_keep_the_rules_of_the_run(solver):
    target = y.clone().requires_grad_()
    energy = LS(target) + bl.Simplex()
    name = type(solver).__name__
    with pytest.raises(TypeError, match=rf"Unroll\(\) cannot record {name}.*FixedPoint\(\)"):
        bl.argmin(energy, solver=solver, diff=bl.Unroll())
    solution = bl.solve(energy, solver=solver)
    assert type(solution.solver) is type(solver) and solution.converged.all()
    x = bl.argmin(energy, solver=solver, diff=bl.Unroll(last=2))  # steps of T: that is defined
    torch.testing.assert_close(x, solution.x)
    testing.fixed_point(energy, solution, tol=1e-12)


def test_limits_hold_for_external_solvers():
    energy = PROGRAMS["polytope"]
    with pytest.raises(bl.NotConverged, match="max_iter ended the loop after 2 steps of Inter"):
        bl.solve(energy, solver=bl.InteriorPoint(), max_iter=1, tol=1e-12)
    with pytest.warns(bl.ConvergenceWarning, match="max_time ended the loop"):
        bl.solve(energy, solver=bl.InteriorPoint(), max_time=1e-9, on_fail="warn")


def test_learn_with_an_external_solver():
    """Warm starts recall its state; the weight of the reference is found again."""
    weight = torch.nn.Parameter(torch.tensor(0.0, dtype=D))
    model = torch.nn.Module()
    model.weight = weight

    def solution(noisy, weight):
        energy = LS(noisy) + weight.exp() * LS() + bl.Simplex()
        return bl.argmin(energy, solver=bl.InteriorPoint())

    model.forward = lambda noisy: solution(noisy, weight)
    clean = solution(y, torch.tensor(1.0, dtype=D))
    data = [{"noisy": p, "clean": q} for p, q in zip(y, clean, strict=True)]
    loss = lambda model, batch: (model(batch["noisy"]) - batch["clean"]).square().mean()  # noqa: E731
    bl.learn(model, data, loss, steps=8, progress=False)
    assert abs(weight.item() - 1) < 1e-4


def test_newton_solves_quadratics_in_one_step():
    image, even = drawn(2, 1, 7, 6), torch.tensor([[1, 2, 1], [2, 5, 2], [1, 2, 1]], dtype=D)
    every = drawn(2, 3, 4)  # a kernel a sample
    for energy, kind in (
        (LS(image) @ bl.Blur(even) + 0.2 * LS() @ bl.Gradient(), "Cosine"),
        (LS(image) @ bl.Blur(every, bl.Periodic()) + h[:2, :1, None, None] * LS(), "Fourier"),
        (LS(image) @ bl.Blur(every[0]) + 0.2 * LS() @ bl.Gradient(), "Dense"),
        (LS(image) @ bl.Blur(even, bl.Periodic()) + 0.2 * LS() @ bl.Gradient(), "Dense"),
        (2.0 * LS(image), "Diagonal"),
        (LS(image) + 3.0 * LS() @ bl.Gradient(), "Cosine"),
        (LS(image) + drawn(7, 6).abs() * LS(0.3), "Diagonal"),
        (LS(image) + drawn(7, 6).abs() * LS() @ bl.Gradient(), "Dense"),
    ):
        solution = bl.solve(energy, solver=bl.Newton())
        assert type(solution.solver.hessian).__name__ == kind
        assert energy_gradient(energy, solution.x).abs().max() <= 1e-12
        assert (solution.iterations <= 2).all()


def energy_gradient(energy, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(energy.value(x).sum(), x)[0]


def test_newton_goes_downhill_where_full_steps_would_not():
    """x -> sqrt(1 + x^2): the full step is -x^3, and diverges from |x| > 1."""
    start = torch.tensor([[0.5], [3.0], [30.0]], dtype=D)
    energy = bl.Potential(lambda x: (1 + x.square()).sqrt().sum(1)) + 1e-6 * LS(0 * start)
    solution = bl.solve(energy, x0=start, solver=bl.Newton(), tol=1e-12)
    assert solution.x.abs().max() <= 1e-6 and len(solution.iterations.unique()) > 1


def test_newton_is_for_small_problems():
    with pytest.raises(ValueError, match=r"2000 unknowns a sample: .* acceleration=LBFGS\(\)"):
        energy = bl.Huber(0.1, drawn(1, 2000)) + 0.1 * LS()
        bl.solve(energy, solver=bl.Newton())


def test_lbfgs_takes_far_fewer_steps_than_momentum():
    t, _ = BY_NAME["logistic"].theta(batch=2)
    energy = BY_NAME["logistic"].energy(t)
    steps = [
        bl.solve(energy, solver=bl.GradientDescent(), acceleration=a, tol=1e-10).iterations.max()
        for a in (bl.LBFGS(), bl.Backtracking())
    ]
    assert steps[0] < steps[1]


def test_the_prox_with_every_kind_of_weight():
    for weight, g in (
        (0.7, bl.Simplex()),
        (h[:, :1], bl.Simplex()),
        (y.abs() + 0.1, 0.3 * bl.L1()),
        (y[0].abs() + 0.1, Box(-0.2, 0.3)),
    ):
        energy = weight * LS(y) + g
        solution = bl.solve(energy, solver=bl.DirectProx())
        assert (solution.iterations == 1).all()
        assert energy.kkt(solution.x, ())[0].abs().max() <= 1e-12


def test_the_derivative_of_a_prox_in_its_weights():
    def solution(y, w, v):
        return bl.argmin(w * LS(y) + v * bl.L2(), solver=bl.DirectProx(), tol=1e-13)

    testing.gradcheck(solution, (y, h[:, :1], torch.tensor(0.3, dtype=D)))


def test_what_a_formula_is_worth_is_worked_out_when_asked(monkeypatch):
    looked = []
    look = Looking.look
    monkeypatch.setattr(Looking, "look", lambda *args: looked.append(1) or look(*args))
    target = y.clone().requires_grad_()
    solution = bl.solve(LS(target) + 0.3 * bl.L1())
    x = bl.argmin(LS(target) + 0.3 * bl.L1())
    assert not looked and solution.converged.all() and (solution.iterations == 1).all()
    assert (solution.residual <= 1e-12).all() and solution.gap is None and len(looked) == 1
    (g,) = torch.autograd.grad(x.pow(3).sum(), target, create_graph=True)
    (g,) = torch.autograd.grad(g.sum(), target, create_graph=True)
    (g,) = torch.autograd.grad(g.sum(), target)  # of every order that the formula has
    torch.testing.assert_close(g, torch.where(x != 0, 6.0, 0.0).double())


def test_a_kink_under_a_formula_is_reported():
    weight = torch.tensor(0.5, dtype=D, requires_grad=True)
    x = bl.argmin(LS(torch.tensor([[0.5, 2.0]], dtype=D)) + weight * bl.L1())
    with pytest.warns(bl.KinkWarning):
        _, certificate = bl.hypergradient(x.sum(), [weight], probe=True)
    assert certificate.influence > 0.1 and certificate.inconsistency == 0


def test_a_formula_that_gives_nan_is_no_solution():
    class Broken(bl.Proximable):
        def value(self, x):
            return x.sum(1)

        def prox(self, x, step):
            return torch.where(x > 0, torch.nan, x)

    with pytest.raises(bl.NotConverged, match="diverged: 4 of 4 samples are NaN"):
        bl.argmin(LS(y) + Broken())


@pytest.mark.parametrize(
    "solver, energy, match",
    [
        (bl.InteriorPoint(), LS(y) + bl.L1(), r"sets of linear inequalities .* ForwardBackward"),
        (bl.InteriorPoint(), bl.Huber(0.1, y) + bl.Simplex(), "needs a quadratic f"),
        (bl.Newton(), LS(y) + bl.L1(), r"a smooth energy, got LeastSquares \+ L1. Use Forward"),
        (bl.DirectProx(), LS(b) @ Matrix(A) + bl.L1(), r"LeastSquares\(y\) \+ one term"),
        (bl.DirectProx(), LS(y) + bl.L1() @ bl.Gradient(1), r"Use PrimalDual\(\)"),
    ],
)
def test_what_a_solver_cannot_solve_is_refused_by_name(solver, energy, match):
    with pytest.raises(TypeError, match=match):
        bl.solve(energy, solver=solver)


def test_values_that_a_solver_cannot_use_are_refused():
    with pytest.raises(ValueError, match=r"needs x of shape \(B, n\), got \(2, 1, 7, 6\)"):
        bl.solve(LS(drawn(2, 1, 7, 6)) + bl.NonNegative(), solver=bl.InteriorPoint())
    with pytest.raises(ValueError, match="whose prox is not separable"):
        bl.solve((y.abs() + 0.1) * LS(y) + bl.Simplex(), solver=bl.DirectProx())
    with pytest.raises(ValueError, match="the weight of LeastSquares, which is 0"):
        bl.solve(0.0 * LS(y) + bl.Simplex(), solver=bl.DirectProx())
    with pytest.raises(TypeError, match=r"LBFGS needs a smooth energy alone"):
        bl.solve(LS(y) + bl.L1(), solver=bl.ForwardBackward(), acceleration=bl.LBFGS())
    with pytest.raises(ValueError, match="a memory of at least 1"):
        bl.LBFGS(memory=0)


def test_the_gradient_through_newton_is_the_reference():
    for name in ("ridge", "logistic"):
        for diff in (bl.FixedPoint(), bl.OneStep()):  # one step is all there is
            assert gradient_error(BY_NAME[name], solver=bl.Newton(), diff=diff) <= 1e-8


@pytest.mark.parametrize("tol", [1e-8, 1e-17])  # the second step is never 0: then a run decides
def test_the_step_that_shows_a_solution_carries_its_derivative(monkeypatch, tol):
    A, b = drawn(3, 20, 5), drawn(3, 20)
    w = torch.tensor([[0.5], [1.0], [2.0]], dtype=D, requires_grad=True)
    energy = LS(b) @ bl.Matrix(A) + w * LS()
    made, step = [], bl.Newton.step
    monkeypatch.setattr(bl.Newton, "step", lambda *args: made.append(0) or step(*args))
    report, options = bl.Certificate(), {"solver": bl.Newton(), "tol": tol}
    x = bl.argmin(energy, diff=bl.FixedPoint(order=1), report=report, **options)
    assert len(made) == 3 or tol < 1e-8  # two, and that of the report
    H = A.mT @ A + w[..., None] * torch.eye(5, dtype=D)
    exact = torch.linalg.solve(H, (A.mT @ b[..., None])[..., 0])
    pulls = torch.autograd.grad(x.sin().sum(), w)[0], torch.autograd.grad(exact.sin().sum(), w)[0]
    torch.testing.assert_close(x, exact, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(*pulls, rtol=1e-11, atol=1e-13)
    assert report.converged.all() and report.residual.max() < 1e-14


@pytest.mark.parametrize(("least", "measured"), [(0.1, False), (1e-4, True)])
def test_the_adjoint_of_a_quadratic_is_measured_where_its_factor_is_poor(least, measured):
    turn = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    A = torch.tensor([1.0, least], dtype=torch.float64)[:, None] * turn
    b = torch.tensor([[1.0, 2.0]], dtype=torch.float64, requires_grad=True)
    report = bl.Certificate()
    energy = bl.LeastSquares(b) @ bl.Matrix(A)
    x = bl.argmin(energy, solver=bl.Newton(), diff=bl.FixedPoint(), report=report)
    x.sum().backward()
    torch.testing.assert_close(x[0].detach(), torch.linalg.solve(A, b[0].detach()))
    torch.testing.assert_close(b.grad[0], torch.linalg.inv(A).sum(0))
    assert report.residual < 1e-8 and (report.adjoint_iterations > 0) == measured
