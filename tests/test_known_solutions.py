"""Energies of the catalogue whose solution is known in another way."""

import numpy as np
import pytest
import scipy.optimize
import torch

import bilevel as bl

pytestmark = pytest.mark.usefixtures("float64")

GENERATOR = torch.Generator().manual_seed(0)
A = torch.randn(9, 5, generator=GENERATOR, dtype=torch.float64)
Y = torch.randn(3, 9, generator=GENERATOR, dtype=torch.float64)
SIGNS = Y.sign()
POINTS = 3 * torch.randn(50, 4, generator=GENERATOR, dtype=torch.float64)


def near(a, b, tol=1e-8):
    torch.testing.assert_close(a, torch.as_tensor(b), rtol=tol, atol=tol)


def test_the_envelope_of_l1_is_huber():
    envelope, huber = 0.6 * bl.MoreauEnvelope(bl.L1(), 0.4), 0.6 * bl.Huber(0.4)
    near(envelope.value(POINTS), huber.value(POINTS), 1e-14)
    near(envelope.grad(POINTS), huber.grad(POINTS), 1e-14)
    near(envelope.prox(POINTS, 0.7), huber.prox(POINTS, 0.7), 1e-14)
    assert envelope.lipschitz(POINTS) == huber.lipschitz(POINTS)


def test_the_envelope_of_a_set_is_half_the_squared_distance():
    distance = (POINTS - POINTS.clamp(-1, 1)).norm(dim=1)
    near(bl.MoreauEnvelope(bl.Box(-1.0, 1.0), 0.5).value(POINTS), distance.square(), 1e-14)


def test_the_envelope_has_the_minimisers_of_its_term():
    x = bl.solve(bl.MoreauEnvelope(bl.Absolute(Y), 0.3), tol=1e-12).x
    near(x, Y)


def test_the_pinball_loss_has_its_minimum_at_the_quantile():
    data = torch.randn(1, 21, generator=GENERATOR)
    everywhere = bl.Matrix(torch.ones(21, 1))
    for level in (0.1, 0.5, 0.83):  # no multiple of 1 / 21: one minimiser
        x = bl.solve(bl.Quantile(level, data) @ everywhere, tol=1e-10).x
        near(x[0, 0], np.quantile(data[0], level, method="inverted_cdf"))
    near(bl.solve(bl.Absolute(data) @ everywhere, tol=1e-10).x[0, 0], data.median())


def test_quantile_regression_is_a_linear_program():
    level = 0.3
    x = bl.solve(bl.Quantile(level, Y) @ bl.Matrix(A), tol=1e-9).x
    m, n = A.shape
    cost = np.r_[np.zeros(n), level * np.ones(m), (1 - level) * np.ones(m)]
    equal = np.hstack([A, np.eye(m), -np.eye(m)])
    bounds = [(None, None)] * n + [(0, None)] * (2 * m)
    for i in range(3):
        program = scipy.optimize.linprog(cost, A_eq=equal, b_eq=Y[i].numpy(), bounds=bounds)
        near(x[i], program.x[:n], 1e-6)


def test_a_support_vector_machine_has_a_gap_and_is_its_dual():
    """max over 0 <= p <= 1 of sum p - |A^T (l p)|^2 / (2 w); x = A^T (l p) / w."""
    weight = 0.4
    energy = bl.Hinge(SIGNS) @ bl.Matrix(A) + weight * bl.LeastSquares()
    solution = bl.solve(energy, x0=torch.zeros(3, 5), tol=1e-10)
    assert solution.gap is not None and bool((solution.gap <= 1e-10).all())
    for i in range(3):
        rows = (SIGNS[i, :, None] * A).numpy()

        def dual(p, rows=rows):
            pull = p @ rows
            return pull @ pull / (2 * weight) - p.sum(), rows @ pull / weight - 1

        best = scipy.optimize.minimize(
            dual, 0.5 * np.ones(9), jac=True, bounds=[(0, 1)] * 9, options={"ftol": 1e-15}
        )
        near(solution.x[i], best.x @ rows / weight, 1e-5)


def test_poisson_data_alone_are_their_own_estimate():
    counts = torch.tensor([[0.0, 1.0, 7.0, 3.0]])
    near(bl.solve(bl.KullbackLeibler(counts, 0.5), x0=torch.ones(1, 4)).x, counts - 0.5, 1e-6)


def test_poisson_regression_is_that_of_scipy():
    P, counts = A.abs(), (3 * Y.exp()).round()
    energy = bl.KullbackLeibler(counts, 0.2) @ bl.Matrix(P) + bl.NonNegative()
    x = bl.solve(energy, x0=torch.ones(3, 5), tol=1e-11, max_iter=100_000).x
    for i in range(3):

        def deviance(v, i=i):
            u = P.numpy() @ v + 0.2
            return (u - counts[i].numpy() * np.log(u)).sum(), P.numpy().T @ (
                1 - counts[i].numpy() / u
            )

        best = scipy.optimize.minimize(
            deviance, np.ones(5), jac=True, bounds=[(0, None)] * 5, options={"ftol": 1e-15}
        )
        near(x[i], best.x, 1e-4)


def test_entropy_on_the_simplex_is_softmax():
    scores = torch.randn(3, 5, generator=GENERATOR)
    energy = bl.Quadratic(torch.zeros(5, 5), -scores) + 0.7 * bl.Entropy() + bl.Simplex()
    near(bl.solve(energy, tol=1e-10).x, (scores / 0.7).softmax(1), 1e-7)


def test_log_sum_exp_and_cross_entropy_are_torchs():
    target = torch.nn.functional.one_hot(torch.tensor([0, 3, 2]), 4).double()
    scores = torch.randn(3, 4, generator=GENERATOR)
    expected = torch.nn.functional.cross_entropy(scores, target, reduction="none")
    near(bl.CrossEntropy(target).value(scores), expected, 1e-14)
    near(bl.LogSumExp().value(1000 * scores), (1000 * scores).logsumexp(1), 1e-14)


def test_a_barrier_tends_to_the_constraint():
    data = bl.LeastSquares(Y) @ bl.Matrix(A)
    x = bl.solve(data + 1e-9 * bl.LogBarrier(), tol=1e-10).x
    near(x, bl.solve(data + bl.NonNegative(), tol=1e-10).x, 1e-4)
    assert (x > 0).all()


def test_quadratic_is_a_linear_system_and_takes_an_indefinite_matrix():
    Q = A.mT @ A
    q = torch.randn(3, 5, generator=GENERATOR)
    near(bl.solve(bl.Quadratic(Q, q), tol=1e-14).x, -torch.linalg.solve(Q, q.mT).mT, 1e-7)
    indefinite = Q - 3 * torch.eye(5)
    term = bl.Quadratic(indefinite, q)
    least = torch.linalg.eigvalsh(indefinite)[0]
    assert least < 0
    near(term.strong_convexity(q), least)
    near((2 * term).lipschitz(q), 2 * torch.linalg.eigvalsh(indefinite).abs().max())
    assert term.conjugate(q).isinf().all()
    solution = bl.solve(term + bl.Box(-1.0, 1.0), tol=1e-10)
    on = solution.x - (solution.x - term.grad(solution.x)).clamp(-1, 1)
    assert on.abs().max() < 1e-8  # stationary
    with pytest.raises(ValueError, match="Quadratic alone has no minimiser: its least eigenvalue"):
        bl.solve(term)


def test_a_singular_quadratic_has_a_conjugate_on_its_range():
    Q = torch.diag(torch.tensor([2.0, 0.0]))
    y = torch.tensor([[1.0, 0.0], [1.0, 0.1]])
    near(bl.Quadratic(Q).conjugate(y), torch.tensor([0.25, torch.inf]))


def test_overlapping_groups_leave_a_union_of_groups_out():
    """The penalty of a group is active in every coordinate of it."""
    indices = torch.tensor([[0, 1, 2], [2, 3, 4], [4, 5, -1]])
    y = torch.tensor([[0.1, 0.1, 0.1, 2.0, 2.0, 1.0]])
    x = bl.solve(bl.LeastSquares(y) + 0.5 * bl.L21() @ bl.Groups(indices, 6), tol=1e-12).x
    near(x[0, :3], torch.zeros(3), 1e-6)
    assert (x[0, 3:] > 0.5).all()


def test_disjoint_groups_are_those_along_a_dim():
    x = torch.randn(3, 12, generator=GENERATOR)
    labels = torch.arange(3).repeat_interleave(4)
    weights = torch.tensor([0.3, 1.0, 2.0])
    groups, along = weights * bl.GroupL2(labels), weights[:, None] * bl.L21()
    near(groups.prox(x, 0.4), along.prox(x.reshape(3, 3, 4), 0.4).reshape(3, 12), 1e-14)
    indices = torch.arange(12).reshape(3, 4)
    near(groups.value(x), (along @ bl.Groups(indices, 12)).value(x), 1e-14)


def test_infimal_convolution_of_two_regularisers():
    """min over u of |u|_1 + |x - u|^2 / (2 mu) is Huber: so is the problem in the two parts."""
    y = torch.randn(2, 5, generator=GENERATOR)
    u, v = bl.Part(0, of=2), bl.Part(1, of=2)
    parts = bl.Separable(0.5 * bl.L1(), 2.0 * bl.LeastSquares())
    x0 = torch.zeros(2, 2, 5)
    stacked = bl.solve(bl.LeastSquares(y) @ (u + v) + parts, x0=x0, tol=1e-12)
    near(stacked.x.sum(1), bl.solve(bl.LeastSquares(y) + 0.5 * bl.Huber(0.25)).x, 1e-6)


def test_infimal_convolution_with_composed_terms():
    """TV and a quadratic of differences, each of its own part."""
    y = torch.randn(1, 12, generator=GENERATOR)
    D, u, v = bl.Gradient(dims=1), bl.Part(0, of=2), bl.Part(1, of=2)
    energy = (
        bl.LeastSquares(y) @ (u + v)
        + 0.3 * bl.TotalVariation(dims=1) @ u
        + 5.0 * bl.LeastSquares() @ D @ D @ v
        + 1e-3 * bl.LeastSquares()
    )
    solution = bl.solve(energy, x0=torch.zeros(1, 2, 12), tol=1e-9, max_iter=100_000)
    rough, smooth = solution.x[:, 0], solution.x[:, 1]
    value = (
        (rough + smooth - y).square().sum() / 2
        + 0.3 * rough.diff().abs().sum()
        + 2.5 * D(D(smooth)).square().sum()
        + 5e-4 * solution.x.square().sum()
    )
    near(solution.value[0], value, 1e-12)
    assert (rough.diff().abs() < 1e-6).any() and not (smooth.diff().abs() < 1e-6).any()


def test_a_wavelet_like_transform_is_a_prox():
    """Soft threshold in a rotated basis: the closed form of an orthogonal synthesis."""
    turn = torch.linalg.qr(A[:5])[0]
    y = torch.randn(2, 5, generator=GENERATOR)
    x = bl.solve(bl.LeastSquares(y) + bl.Orthogonal(0.4 * bl.L1(), bl.Matrix(turn))).x
    coefficients = y @ turn.mT
    near(x, (coefficients - coefficients.clamp(-0.4, 0.4)) @ turn, 1e-7)
