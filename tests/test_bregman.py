"""Mirror descent and the Bregman primal-dual method: smooth steps to non-smooth solutions."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, nnls

import bilevel as bl
from bilevel import testing
from bilevel.solvers.geometry import BoxEntropy, SimplexEntropy


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------- geometries


def log_sum(x):
    return (x * x.log()).sum(1)


BOX = (torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([1.0, 0.5, 5.0]))
GEOMETRIES = {  # phi written out, and points inside
    "positive": (
        bl.PositiveEntropy(0.7),
        lambda x: log_sum(x) - x.sum(1) + 0.35 * x.square().sum(1),
        draw(4, 3).exp(),
    ),
    "exponential": (
        bl.PositiveEntropy(0.0),
        lambda x: log_sum(x) - x.sum(1),
        draw(4, 3).exp(),
    ),
    "simplex": (SimplexEntropy(2.0), log_sum, 2 * draw(4, 3).softmax(1)),
    "box": (
        BoxEntropy(*(bound.double() for bound in BOX)),
        lambda x: log_sum(x - BOX[0]) + log_sum(BOX[1] - x),
        BOX[0] + (BOX[1] - BOX[0]) * torch.rand(4, 3, dtype=torch.float64),
    ),
    "burg": (bl.Burg(), lambda x: -x.log().sum(1), draw(4, 3).exp()),
}
every = pytest.mark.parametrize("geometry, phi, x", GEOMETRIES.values(), ids=GEOMETRIES)


def gradient(phi, x):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(phi(x).sum(), x)[0]


@every
def test_a_move_solves_its_problem(geometry, phi, x):
    """grad phi(u) = grad phi(x) - slope: up to a multiple of 1 on the simplex."""
    slope = 0.1 * draw(4, 3, seed=1)
    u = geometry.point(geometry.move(geometry.coordinate(x), slope))
    left = gradient(phi, u) - gradient(phi, x) + slope
    if isinstance(geometry, SimplexEntropy):
        torch.testing.assert_close(u.sum(1), x.sum(1))
        left = left - left.mean(1, keepdim=True)
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-12)


@every
def test_coordinates_are_those_of_points(geometry, phi, x):
    torch.testing.assert_close(geometry.point(geometry.coordinate(x)), x, rtol=1e-13, atol=0)


@pytest.mark.parametrize("name", ["positive", "simplex", "box"])
def test_phi_is_as_convex_as_it_says(name):
    """<grad phi(u) - grad phi(x), u - x> >= sum mu (u - x)^2; the others promise nothing of it."""
    geometry, phi, x = GEOMETRIES[name]
    u = x.flip(0)
    rise = ((gradient(phi, u) - gradient(phi, x)) * (u - x)).sum(1)
    assert (rise >= (geometry.strength(x) * (u - x).square()).sum(1) * (1 - 1e-12)).all()


@pytest.mark.parametrize("name", ["positive", "simplex"])
def test_an_entropy_is_taken_in(name):
    """(1 + e) of the logarithms: grad phi(u) + e (log u + 1) = grad phi(x) - slope."""
    geometry, phi, x = GEOMETRIES[name]
    slope, e = 0.1 * draw(4, 3, seed=1), 0.3
    u = geometry.point(geometry.move(geometry.coordinate(x), slope, e))
    left = gradient(phi, u) + e * (u.log() + 1) - gradient(phi, x) + slope
    if name == "simplex":
        left = left - left.mean(1, keepdim=True)
    torch.testing.assert_close(left, torch.zeros_like(left), rtol=0, atol=1e-12)


# ----------------------------------------------------------------- non-negative least squares


def least_squares(seed=0, rows=12, columns=8, batch=3):
    return draw(rows, columns, seed=seed), draw(batch, rows, seed=seed + 1)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_non_negative_least_squares_are_scipys(size):
    A, b = least_squares()
    energy = bl.LeastSquares(size * b) @ bl.Matrix(A) + bl.NonNegative()
    x = bl.solve(energy, solver=bl.MirrorDescent(), tol=1e-10).x
    expected = np.stack([nnls(A.numpy(), row)[0] for row in size * b.numpy()])
    np.testing.assert_allclose(x.numpy(), expected, rtol=0, atol=1e-9 * size)
    assert ((x == 0) == torch.from_numpy(expected == 0)).all()  # on the boundary, exactly


@pytest.mark.parametrize(
    "diff", [bl.FixedPoint(), bl.Implicit(), bl.Unroll()], ids=lambda d: type(d).__name__
)
def test_their_gradient(diff):
    """x_S = A_S^+ b on the support S, and 0 beside it."""
    A, b = least_squares(batch=1)
    A.requires_grad_()
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()
    x = bl.argmin(energy, solver=bl.MirrorDescent(), diff=diff, tol=1e-11)
    weights = draw(1, 8, seed=5)
    (got,) = torch.autograd.grad((weights * x).sum(), A)
    S = x[0].detach() > 1e-9
    on_support = torch.linalg.lstsq(A[:, S], b[0]).solution
    (expected,) = torch.autograd.grad((weights[0, S] * on_support).sum(), A)
    tol = 1e-6 if isinstance(diff, bl.Unroll) else 1e-9  # the run ends at 1e-11 in the iterates
    assert (got - expected).norm() <= tol * expected.norm()


def test_second_derivatives():
    A, b = least_squares(batch=1, columns=3)

    def solution(b):
        energy = bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()
        return bl.argmin(energy, solver=bl.MirrorDescent(), tol=1e-12).pow(3)

    assert torch.autograd.gradcheck(solution, b.requires_grad_(), atol=1e-6)
    assert torch.autograd.gradgradcheck(solution, b, atol=1e-5)


def test_a_start_next_to_the_wrong_boundary_is_no_solution():
    """x = T(x) nearly there, as x is nearly 0: only the logarithm tells that it grows."""
    b = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    energy = bl.LeastSquares(b) + bl.NonNegative()
    start = torch.tensor([[1e-12, 2.0]], dtype=torch.float64)
    x = bl.solve(energy, x0=start, solver=bl.MirrorDescent(), tol=1e-8).x
    torch.testing.assert_close(x, b, rtol=1e-7, atol=0)


def test_step_sizes_beyond_the_limit_are_refused():
    A, b = least_squares()
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()
    with pytest.raises(ValueError, match="must be below 1 / L, L the relative smoothness"):
        bl.solve(energy, solver=bl.MirrorDescent(step_size=1.0))
    with pytest.raises(ValueError, match="no default with PositiveEntropy.curvature=0"):
        bl.solve(energy, solver=bl.MirrorDescent(bl.PositiveEntropy(0.0)))


def test_exponentiated_gradient():
    A, b = least_squares(batch=1)
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()
    solver = bl.MirrorDescent(bl.PositiveEntropy(0.0), step_size=0.02)
    x = bl.solve(energy, x0=torch.ones(1, 8, dtype=torch.float64), solver=solver, tol=1e-9).x
    np.testing.assert_allclose(x[0], nnls(A.numpy(), b[0].numpy())[0], rtol=0, atol=1e-8)


# -------------------------------------------------------------------------------- Poisson data


def poisson(seed=0):
    A = draw(9, 4, seed=seed).abs()
    counts = torch.poisson(10 * A.sum(1), generator=torch.Generator().manual_seed(seed))[None]
    return A, counts


def test_poisson_data():
    A, counts = poisson()
    energy = bl.KullbackLeibler(counts) @ bl.Matrix(A) + bl.NonNegative()
    x = bl.solve(energy, solver=bl.MirrorDescent(bl.Burg()), tol=1e-10).x
    expected = bl.solve(energy, tol=1e-10).x
    torch.testing.assert_close(x, expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_of_poisson_data():
    A, counts = poisson()

    def solution(counts):
        energy = bl.KullbackLeibler(counts, 0.5) @ bl.Matrix(A) + bl.NonNegative()
        return bl.argmin(energy, solver=bl.MirrorDescent(bl.Burg()), tol=1e-12)

    testing.gradients_agree(solution, [counts])


def test_poisson_data_are_smooth_relative_to_burg():
    """D_f(u, x) <= sum c D(u, x) for random points: the constant behind the step size."""
    A, counts = poisson()
    term = bl.KullbackLeibler(counts) @ bl.Matrix(A)
    x, u = draw(200, 4).exp(), draw(200, 4, seed=1).exp()
    image = term.operator(x)
    slope = term.operator.adjoint(term.outer.slope(image))
    bend = term.value(u) - term.value(x) - (slope * (u - x)).sum(1)
    ratio = u / x
    assert (bend <= counts.sum() * (ratio - 1 - ratio.log()).sum(1) * (1 + 1e-10)).all()


# -------------------------------------------------------------------------------- matrix games


def game(n, m, seed):
    """A game, with its solution by HiGHS."""
    payoff = draw(n, m, seed=seed)
    rows, columns = np.eye(1, m + 1, m)[0], np.c_[payoff.numpy(), -np.ones(n)]
    program = linprog(
        rows,
        columns,
        np.zeros(n),
        np.r_[np.ones(m), 0][None],
        [1.0],
        bounds=[(0, None)] * m + [(None, None)],
    )
    return payoff, program


def play(payoff, **options):
    energy = bl.Largest() @ bl.Matrix(payoff) + bl.Simplex()
    x0 = torch.full((1, payoff.shape[1]), 1 / payoff.shape[1], dtype=torch.float64)
    return energy, dict(x0=x0, solver=bl.BregmanPrimalDual(), tol=1e-11, **options)


@pytest.mark.parametrize("seed", [0, 1, 3])
def test_matrix_games_are_linear_programs(seed):
    payoff, program = game(3, 3, seed)
    energy, options = play(payoff)
    solution = bl.solve(energy, **options)
    np.testing.assert_allclose(solution.value.item(), program.fun, rtol=0, atol=1e-9)
    np.testing.assert_allclose(solution.x[0], program.x[:-1], rtol=0, atol=1e-8)
    np.testing.assert_allclose(
        solution.dual[0][0], -program.ineqlin.marginals, rtol=0, atol=1e-8
    )  # the other player's


def test_the_value_of_a_game_has_the_gradient_y_x():
    """dv = y* dA x (Mills 1956), and the strategies that of differences."""
    payoff, program = game(3, 3, 4)
    payoff.requires_grad_()
    energy, options = play(payoff)
    x = bl.argmin(energy, **options)
    (got,) = torch.autograd.grad((payoff @ x[0]).amax(), payoff)
    y = torch.from_numpy(-program.ineqlin.marginals)
    torch.testing.assert_close(got, torch.outer(y, x[0].detach()), rtol=0, atol=1e-7)

    def strategy(payoff):
        energy, options = play(payoff)
        return bl.argmin(energy, **options)

    testing.gradients_agree(strategy, [payoff.detach()])


@pytest.mark.parametrize(("seed", "apart"), [(0, 1e-2), (1, 1e-4), (2, 1e-4), (0, 1e-6)])
def test_a_nearly_tied_game_and_its_gradient(seed, apart):
    """A strategy in use beside one of nearly the same payoffs: x = (A_JI, -1; 1, 0)^-1 (0, 1) on
    those that are played, I, and the best answers, J."""
    payoff, program = game(5, 5, seed)
    tied = payoff[:, [int(program.x[:-1].argmax())]] + apart * draw(5, 1, seed=seed + 9)
    payoff = torch.cat([payoff, tied], 1).requires_grad_()
    energy, options = play(payoff)
    x = bl.argmin(energy, **options)[0]
    played, x_exact = (x > 0).nonzero()[:, 0], torch.zeros_like(x)
    best = (payoff @ x).detach().topk(len(played)).indices
    one = torch.ones(len(played), 1, dtype=x.dtype)
    rows = torch.cat([payoff[best][:, played], -one], 1), torch.cat([one.mT, 0 * one[:1]], 1)
    solved = torch.linalg.solve(torch.cat(rows), torch.cat([0 * one[:, 0], one[0]]))
    x_exact = x_exact.index_put((played,), solved[:-1])
    value, worst = solved[-1], (payoff @ x_exact).amax()
    torch.testing.assert_close(x, x_exact, rtol=0, atol=1e-8)
    torch.testing.assert_close(worst, value, rtol=0, atol=1e-10)  # nothing answers better
    g = draw(6, seed=seed)
    got, right = (torch.autograd.grad(v @ g, payoff, retain_graph=True)[0] for v in (x, x_exact))
    assert (got - right).norm() <= 1e-8 * right.norm()


# -------------------------------------------------------------------- sets, and what lies beside


class Transposed(bl.Operator):
    """D*, of a real D."""

    def __init__(self, D):
        self.D = D

    def __call__(self, x):
        return self.D.adjoint(x)

    def adjoint(self, y):
        return self.D(y)

    def norm(self, x):
        return 2.0  # of differences in one dim


def test_total_variation_by_its_dual_box():
    """min |y - D* p|^2 / 2 over |p| <= weight, x = y - D* p: smooth steps, the same gradient."""
    y = draw(1, 8)
    weight = torch.tensor(0.4, dtype=torch.float64)

    def by_box(weight, y):
        D = bl.Gradient(1)
        slopes = torch.zeros_like(D(y))
        energy = bl.LeastSquares(y) @ Transposed(D) + bl.Box(-weight, weight)
        return y - D.adjoint(bl.argmin(energy, x0=slopes, solver=bl.MirrorDescent(), tol=1e-11))

    def direct(weight, y):
        return bl.argmin(bl.LeastSquares(y) + weight * bl.TotalVariation(dims=1), tol=1e-11)

    leaves = [t.requires_grad_() for t in (weight, y)]
    a, b = by_box(*leaves), direct(*leaves)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    loss = draw(1, 8, seed=2)
    for p, q in zip(*(torch.autograd.grad((loss * x).sum(), leaves) for x in (a, b)), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("solver", [bl.MirrorDescent(), bl.BregmanPrimalDual()], ids=str)
def test_a_linear_program_with_entropy_is_softmax(solver):
    costs = draw(2, 5).requires_grad_()
    energy = bl.Linear(costs) + bl.Simplex() + 0.3 * bl.Entropy()
    x = bl.argmin(energy, solver=solver, tol=1e-12)
    expected = (-costs / 0.3).softmax(1)
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=0)
    loss = draw(2, 5, seed=1)
    a, b = (torch.autograd.grad((loss * v).sum(), costs)[0] for v in (x, expected))
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_segmentation_with_entropy_agrees_with_the_euclidean_method():
    costs = draw(1, 3, 3, 3)
    energy = bl.Linear(costs) + bl.Simplex(dim=1) + 0.4 * bl.Entropy()
    energy = energy + 0.3 * bl.TotalVariation(isotropic=False)
    a = bl.solve(energy, solver=bl.BregmanPrimalDual(), tol=1e-7)
    b = bl.solve(energy, solver=bl.PrimalDual(), tol=1e-8)
    torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-5)
    assert len(a.dual) == len(b.dual) == 2
    testing.fixed_point(energy, a)


@pytest.mark.parametrize("dtype, huge", [(torch.float32, 1e15), (torch.float64, 1e100)])
def test_huge_slopes_do_not_overflow(dtype, huge):
    costs = torch.tensor([[0.0, huge, -huge, 5.0]], dtype=dtype)
    energy = bl.LeastSquares(-costs) + bl.Simplex()
    x = bl.solve(energy, solver=bl.MirrorDescent()).x
    assert torch.equal(x, torch.tensor([[0.0, 0.0, 1.0, 0.0]], dtype=dtype))


# ------------------------------------------------------------------------------------- refusals

y = torch.ones(1, 3, dtype=torch.float64)
REFUSED = [
    (bl.MirrorDescent(), bl.LeastSquares(y) + bl.L1(), "MirrorDescent needs a constraint"),
    (bl.MirrorDescent(), bl.LeastSquares(y) + bl.Box(0.0, torch.inf), "finite bounds"),
    (bl.MirrorDescent(), bl.L1() @ bl.Matrix(torch.eye(3).double()) + bl.Simplex(), "smooth term"),
    (bl.MirrorDescent(), bl.LeastSquares(y) + bl.Simplex() + bl.L1(), "handles h.Kx."),
    (bl.MirrorDescent(bl.Burg()), bl.LeastSquares(y) + bl.NonNegative(), "KullbackLeibler data"),
    (bl.MirrorDescent(bl.Burg()), bl.LeastSquares(y) + bl.Simplex(), "NonNegative.. as the first"),
    (bl.MirrorDescent(bl.Burg), bl.LeastSquares(y) + bl.NonNegative(), "geometry must be"),
    (bl.BregmanPrimalDual(bl.Burg()), bl.LeastSquares(y) + bl.NonNegative(), "no step size with"),
    (bl.BregmanPrimalDual(), bl.LeastSquares(y) + bl.L2() @ bl.Gradient(1), "set with an entropy"),
    (bl.BregmanPrimalDual(), bl.Linear(y) + bl.Box(0.0, 1.0) + bl.Entropy(), "no closed form"),
]


@pytest.mark.parametrize("solver, energy, told", REFUSED, ids=[case[2] for case in REFUSED])
def test_what_they_cannot_do_is_refused(solver, energy, told):
    with pytest.raises(TypeError, match=told):
        bl.solve(energy, x0=y, solver=solver)
