"""Projections beside those of pyproximal, SciPy and brute force."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression, minimize

import bilevel as bl
from bilevel.terms.isotonic import blocks, increasing
from registry import Draw

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def peer():
    return pytest.importorskip("pyproximal.projection", reason="needs pyproximal")


def normal(*shape, seed=0):
    return Draw(seed=seed).normal(*shape)


N = 7
a, lower, upper = normal(N, seed=1), -0.5 - normal(N, seed=2).abs(), 0.5 + normal(N, seed=3).abs()
A, b = normal(3, N, seed=4), normal(3, seed=5)

# name in pyproximal, how it is made there, ours, the event, the tolerance of its bisection or loop
PEERS = [
    ("BoxProj", lambda P: P(lower.numpy(), upper.numpy()), bl.Box(lower, upper), (N,), 1e-14),
    ("HyperPlaneBoxProj", lambda P: P(a.numpy(), 0.3, lower.numpy(), upper.numpy(), xtol=1e-12),
     bl.HyperplaneBox(a, 0.3, lower, upper), (N,), 1e-10),
    ("SimplexProj", lambda P: P(N, 1.7, xtol=1e-12), bl.Simplex(1.7), (N,), 1e-10),
    ("L0BallProj", lambda P: P(3), bl.L0Ball(3), (N,), 0.0),
    ("L1BallProj", lambda P: P(N, 1.2, xtol=1e-12), bl.L1Ball(1.2), (N,), 1e-10),
    ("EuclideanBallProj", lambda P: P(a.numpy(), 0.8), bl.L2Ball(0.8, a), (N,), 1e-14),
    ("NuclearBallProj", lambda P: P(4, 1.1, xtol=1e-12), bl.NuclearBall(1.1), (4, 6), 1e-10),
    ("NuclearBallProj", lambda P: P(4, 1.1, xtol=1e-12), bl.NuclearBall(1.1), (6, 4), 1e-10),
    ("HankelProj", lambda P: P(), bl.Hankel(), (4, 6), 1e-14),
    ("HalfSpaceProj", lambda P: P(a.numpy(), 0.3), bl.HalfSpace(a, 0.3), (N,), 1e-14),
]  # fmt: skip


@pytest.mark.parametrize("name, make, term, event, tol", PEERS)
def test_beside_pyproximal(name, make, term, event, tol, peer):
    theirs = make(getattr(peer, name))
    x = torch.cat([normal(5, *event), 0.1 * normal(5, *event, seed=6)])
    ours = term.prox(x, 1.0)
    for sample, expected in zip(ours, x, strict=True):
        expected = torch.as_tensor(np.asarray(theirs(expected.numpy().copy())))
        torch.testing.assert_close(sample, expected, rtol=0, atol=tol)


def test_affine_beside_pyproximal(peer):
    operator = pytest.importorskip("pylops", reason="needs pylops").MatrixMult(A.numpy())
    x = normal(5, N)
    ours = bl.Affine(A, b).prox(x, 1.0)
    for sample, given in zip(ours, x, strict=True):
        theirs = peer.AffineSetProj(operator, b.numpy(), niter=50)(given.numpy())
        torch.testing.assert_close(sample, torch.as_tensor(theirs), rtol=0, atol=1e-5)  # CG's rtol


def test_groups_are_kept_by_their_lengths_where_pyproximal_takes_sums(peer):
    """L10BallProj sorts by sums of magnitudes: no nearest point where the orders differ."""
    x = torch.tensor([[[3.0, 2.0, 0.1], [0.0, 2.0, 0.1]]])  # columns: lengths 3, 2.83; sums 3, 4
    ours = bl.L0Ball(1, dim=1).prox(x, 1.0)
    theirs = torch.as_tensor(peer.L10BallProj(1)(x[0].numpy()))
    assert (ours[0, :, 0] == x[0, :, 0]).all() and (ours[..., 1:] == 0).all()
    assert (ours[0] - x[0]).norm() < (theirs - x[0]).norm()
    x = normal(1, 3, 6)  # where they agree
    expected = torch.as_tensor(peer.L10BallProj(2)(x[0].numpy()))
    assert torch.equal(bl.L0Ball(2, dim=1).prox(x, 1.0)[0], expected)


def test_sparse_projection_is_the_best_of_all_supports():
    x = normal(4, 6)
    for count in range(7):
        best = torch.stack(
            [
                torch.zeros(6).index_fill(0, torch.tensor(s, dtype=torch.long), 1.0)
                for s in itertools.combinations(range(6), count)
            ]
        )
        distance = (x[:, None] * (1 - best)).norm(dim=-1).amin(1)
        ours = bl.L0Ball(count).prox(x, 1.0)
        torch.testing.assert_close((x - ours).norm(dim=1), distance)


def test_intersections_are_sums_of_terms(peer):
    """IntersectionProj, |x_j - x_i| <= s, and GenericIntersectionProj: differentiable as sums."""
    k = 4
    pairs = list(itertools.combinations(range(k), 2))
    D = torch.zeros(len(pairs), k)
    for row, (i, j) in enumerate(pairs):
        D[row, i], D[row, j] = -1.0, 1.0
    y = normal(5, k)
    ours = bl.argmin(bl.LeastSquares(y) + bl.LinfBall(0.4) @ bl.Matrix(D), tol=1e-9)
    theirs = peer.IntersectionProj(k, 5, 0.4, niter=5000, tol=1e-12)(y.mT.numpy().copy())
    torch.testing.assert_close(ours, torch.as_tensor(theirs).reshape(k, 5).mT, rtol=0, atol=1e-6)

    y = normal(1, N)
    ours = bl.argmin(bl.LeastSquares(y) + bl.L1Ball(2.0) + bl.HalfSpace(a, -0.5), tol=1e-9)
    sets = [peer.L1BallProj(N, 2.0, xtol=1e-14), peer.HalfSpaceProj(a.numpy(), -0.5)]
    theirs = peer.GenericIntersectionProj(sets, niter=20000, tol=1e-13)(y[0].numpy())
    torch.testing.assert_close(ours[0], torch.as_tensor(theirs), rtol=0, atol=1e-6)


def brute_force(x, constraints):
    """argmin 1/2 |u - x|^2 by SciPy."""
    x = x.numpy()
    result = minimize(
        lambda u: ((u - x) ** 2).sum() / 2, 0 * x, jac=lambda u: u - x, method="SLSQP",
        constraints=constraints, options={"ftol": 1e-15, "maxiter": 500},
    )  # fmt: skip
    return torch.as_tensor(result.x)


def test_mixed_balls_and_cones_beside_a_quadratic_program():
    """Balls with their maxima and signs as linear constraints of more unknowns; cones as such."""
    x = normal(3, 3, seed=7)
    for term, dim in ((bl.L1InfBall(1.1), 1), (bl.L1InfBall(1.1, dim=1), 0)):
        ours, (m, n) = term.prox(x[None], 1.0)[0], x.shape
        size = x.abs().flatten()

        def bounds(u, dim=dim, m=m, n=n):  # u: magnitudes, then one maximum a group
            tops = np.expand_dims(u[m * n :], dim)
            return np.concatenate(
                [(tops - u[: m * n].reshape(m, n)).ravel(), [1.1 - tops.sum()], u]
            )

        groups = ours.abs().amax(dim).numel()
        result = minimize(
            lambda u, s=size: ((u[: len(s)] - s.numpy()) ** 2).sum() / 2, np.zeros(m * n + groups),
            method="SLSQP", constraints={"type": "ineq", "fun": bounds},
            options={"ftol": 1e-14, "maxiter": 500},
        )  # fmt: skip
        expected = torch.as_tensor(result.x[: m * n]).reshape(m, n) * x.sign()
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    for seed in range(4):
        x = normal(1, 5, seed=seed) * 2
        cone = {"type": "ineq", "fun": lambda u: u[0] - np.linalg.norm(u[1:] + 1e-12)}
        expected = brute_force(x[0], cone)
        torch.testing.assert_close(
            bl.SecondOrderCone().prox(x, 1.0)[0], expected, rtol=0, atol=1e-5
        )


# Monotone regression


@pytest.mark.parametrize("n", [1, 2, 3, 10, 200])
@pytest.mark.parametrize("kind", ["random", "noisy line", "integers", "cascade", "falling"])
def test_isotonic_beside_scipy(n, kind):
    rows = {
        "random": lambda: normal(6, n),
        "noisy line": lambda: torch.linspace(-1, 1, n) + 0.3 * normal(6, n),
        "integers": lambda: (3 * normal(6, n)).round(),
        "cascade": lambda: torch.cat([torch.arange(n - 1.0), torch.tensor([-1e6])]).expand(6, n),
        "falling": lambda: -torch.arange(1.0 * n).expand(6, n),
    }[kind]()
    ours = increasing(rows)
    if n > 6:  # by SciPy; as many rows as entries go by rounds
        many = increasing(rows.repeat(n, 1))[:6]
        torch.testing.assert_close(ours, many, rtol=1e-14, atol=1e-14)
    for row, given in zip(ours, rows, strict=True):
        theirs = torch.as_tensor(isotonic_regression(given.numpy()).x)
        torch.testing.assert_close(row, theirs, rtol=1e-12, atol=1e-12)
    decreasing = bl.Monotone(increasing=False).prox(rows, 1.0)
    torch.testing.assert_close(decreasing, -increasing(-rows), rtol=0, atol=0)


def test_a_cascade_is_handed_on():
    """It joins one block a round: SciPy's algorithm finishes what 48 rounds did not."""
    row = torch.cat([torch.arange(199.0), torch.tensor([-1e6])])
    rows = torch.stack([row, torch.arange(200.0), row.flip(0)]).repeat(67, 1)
    label = blocks(rows)  # as many rows as entries: by rounds
    assert (label[0] == 0).all() and (label[1] == torch.arange(200)).all()
    assert torch.equal(blocks(rows[:3]), label[:3])  # few rows: by SciPy


def test_the_derivative_of_isotonic_regression_is_the_mean_over_blocks():
    x = torch.tensor([[1.0, 3.0, 2.0, 2.4, 7.0, 5.0]], requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(lambda x: bl.Monotone().prox(x, 1.0)[0], x)[:, 0]
    expected = torch.block_diag(
        torch.ones(1, 1), torch.full((3, 3), 1 / 3), torch.full((2, 2), 0.5)
    )
    torch.testing.assert_close(jacobian, expected)


# Relations


def test_sorted_l1_has_l1_and_linf_as_ends():
    x, n = normal(4, 6), 6
    first = torch.zeros(n).index_fill(0, torch.tensor([0]), 1.0)
    for levels, norm in ((torch.ones(n), bl.L1()), (first, bl.Linf())):
        term = 0.4 * bl.SortedL1(levels)
        torch.testing.assert_close(term.value(x), 0.4 * norm.value(x))
        torch.testing.assert_close(term.prox(x, 1.5), (0.4 * norm).prox(x, 1.5))


def test_matrix_terms_act_on_diagonals_as_their_vector_norms():
    x = normal(4, 5)
    matrices = torch.diag_embed(x)
    for term, vector in (
        (0.4 * bl.Nuclear(), 0.4 * bl.L1()),
        (0.4 * bl.SpectralNorm(), 0.4 * bl.Linf()),
        (bl.NuclearBall(1.2), bl.L1Ball(1.2)),
        (bl.SpectralBall(0.4), bl.LinfBall(0.4)),
        (bl.PositiveSemidefinite(), bl.NonNegative()),
    ):
        got = term.prox(matrices, 0.7)
        torch.testing.assert_close(got, torch.diag_embed(vector.prox(x, 0.7)), atol=1e-13, rtol=0)
        torch.testing.assert_close(term.value(got), vector.value(vector.prox(x, 0.7)))


def test_a_simplex_is_a_hyperplane_in_a_box():
    x = 3 * normal(6, 5)
    ours = bl.HyperplaneBox(torch.ones(5), 1.3).prox(x, 1.0)
    torch.testing.assert_close(ours, bl.Simplex(1.3).prox(x, 1.0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4, 1e8])
def test_projections_lie_in_their_sets_however_far_the_point(scale, dtype):
    """Found with Simplex, whose level lost the digits that a large x left it."""
    x = scale * normal(20, 6).to(dtype)
    for term in (
        bl.Simplex(), bl.Simplex(1e-3), bl.L1Ball(0.5), bl.L1Ball(1e-3), bl.LinfBall(0.2),
        bl.Hyperplane(a[:6].to(dtype), 0.1),
        bl.HalfSpace(a[:6].to(dtype), 0.1), bl.Affine(A[:, :6].to(dtype), b.to(dtype)),
        bl.Monotone(), bl.SecondOrderCone(),
    ):  # fmt: skip
        assert (term.value(term.prox(x, 1.0)) == 0).all(), term
    if scale * torch.finfo(dtype).eps < 1e-3:  # else x +- 1 are one number, and the sides one
        term = bl.HyperplaneBox(a[:6].to(dtype), 0.1, -1.0, 1.0)
        assert (term.value(term.prox(x, 1.0)) == 0).all()
    x = x.reshape(5, 4, 6)
    for term in (
        bl.L21Ball(0.3), bl.L1InfBall(0.3), bl.NuclearBall(0.3), bl.SpectralBall(0.3), bl.Hankel(),
    ):  # fmt: skip
        assert (term.value(term.prox(x, 1.0)) == 0).all(), term
    square = x[..., :4]
    cone = bl.PositiveSemidefinite()
    assert (cone.value(cone.prox(square, 1.0)) == 0).all()
