"""Every bound holds, and the drift tells the error, on random problems with dense references."""

import math

import numpy as np
import pytest
import torch

import bilevel as bl

pytestmark = pytest.mark.usefixtures("float64")


ITERATED = {"solver": bl.ForwardBackward(), "diff": bl.Implicit(), "on_fail": "ignore"}


def smooth_energy(kind, seed, n, m, condition):
    """(energy of the log weight, its mixed constant): least squares or logistic with a ridge."""
    rng = torch.Generator().manual_seed(seed)
    U, V = (torch.linalg.qr(torch.randn(k, min(m, n), generator=rng))[0] for k in (m, n))
    A = U * torch.logspace(0, -math.log10(condition) / 2, min(m, n)) @ V.mT
    b = torch.randn(1, m, generator=rng)
    data = bl.LeastSquares(b) if kind == "ridge" else bl.Logistic(b.sign())

    def energy(log_weight):
        return data @ bl.Matrix(A) + log_weight.exp() * bl.LeastSquares()

    return energy, A, b


def exact_gradient(kind, A, b, log_weight, target):
    """d/d(log w) of 1/2 |x - target|^2 by Newton's method and a dense solve, to rounding."""
    w, x = float(log_weight.exp()), torch.zeros(A.shape[1])
    labels = b[0].sign()
    for _ in range(60):
        u = A @ x
        if kind == "ridge":
            slope, curved = A.mT @ (u - b[0]) + w * x, torch.ones_like(u)
        else:
            p = torch.sigmoid(-labels * u)
            slope, curved = -A.mT @ (labels * p) + w * x, p * (1 - p)
        hessian = A.mT @ (curved[:, None] * A) + w * torch.eye(len(x))
        x = x - torch.linalg.solve(hessian, slope)
    return -w * torch.linalg.solve(hessian, x - target) @ x


def one_case(kind, seed):
    """(true relative error, bound, estimate) at a random size, condition and tolerance."""
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 40)), int(rng.integers(2, 40))
    condition, tol = 10 ** rng.uniform(0, 6), 10 ** rng.uniform(-10, -2)
    energy, A, b = smooth_energy(kind, seed, n, m, condition)
    log_weight = torch.tensor(rng.uniform(-5, 1)).requires_grad_()
    target = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    x = bl.argmin(energy(log_weight), x0=torch.zeros(1, n), tol=tol, **ITERATED)
    (found,), certificate = bl.hypergradient(
        (x[0] - target).square().sum() / 2,
        [log_weight],
        lipschitz=bl.Lipschitz(loss=1.0, mixed=float(log_weight.detach().exp())),
        probe=True,
    )
    exact = exact_gradient(kind, A, b, log_weight.detach(), target)
    error = float((found - exact).abs() / exact.abs())
    return error, certificate.bound, float(certificate.estimate)


ROUNDING = 1e-11  # of the exact gradient, at the worst condition drawn


@pytest.mark.parametrize("kind", ["ridge", "logistic"])
def test_every_bound_holds_and_the_drift_tells_the_error(kind):
    cases = [one_case(kind, seed) for seed in range(40)]
    assert all(error <= bound + ROUNDING for error, bound, _ in cases)
    assert sum(bound < 1 for _, bound, _ in cases) > 10  # that some say something
    ratios = [estimate / error for error, _, estimate in cases if error > 1e-10]
    assert np.mean([0.1 <= ratio <= 10 for ratio in ratios]) >= 0.9
    assert 0.5 <= np.median(ratios) <= 2


def test_the_bound_of_many_samples_and_parameters():
    """All entries of b, two samples: J is -A^T, its norm that of A."""
    A, b = torch.randn(6, 4), torch.randn(2, 6).requires_grad_()
    energy = bl.LeastSquares(b) @ bl.Matrix(A) + 3 * bl.LeastSquares()
    x = bl.argmin(energy, tol=1e-3, **ITERATED)
    known = bl.Lipschitz(loss=1.0, mixed=0.0)
    (found,), certificate = bl.hypergradient(x.square().sum() / 2, [b], lipschitz=known)
    H = A.mT @ A + 3 * torch.eye(4)
    exact = torch.linalg.solve(H, torch.linalg.solve(H, A.mT @ b.detach().mT)).mT @ A.mT
    error = float((found - exact).norm() / exact.norm())
    assert 1e-8 < error <= certificate.bound < 100 * error


def test_a_bound_that_cannot_be_had_says_why():
    known, w = bl.Lipschitz(loss=1.0, mixed=1.0), torch.tensor(0.3).requires_grad_()
    A, b = bl.Matrix(torch.randn(6, 4)), torch.randn(1, 6)

    def refused(energy, message):
        x = bl.argmin(energy, x0=torch.zeros(1, 4), max_iter=500, **ITERATED)
        with pytest.raises(ValueError, match=message):
            bl.hypergradient(x.sum(), [w], lipschitz=known)

    refused(bl.LeastSquares(b) @ A + w * bl.L1(), "needs a smooth energy, .* by Implicit")
    refused(w * bl.LeastSquares(b) @ A, "needs strong convexity, which the terms do not declare")
    ridge = bl.LeastSquares()
    refused(bl.Huber(0.1, b) @ A + w * ridge, "needs a Lipschitz constant of the Hessian")
    with pytest.raises(ValueError, match="Lipschitz needs mixed >= 0 and finite, got -1"):
        bl.Lipschitz(loss=1.0, mixed=-1)


def test_two_solutions_have_no_common_bound():
    w = torch.tensor(0.3).requires_grad_()
    energies = [w * bl.LeastSquares() + bl.LeastSquares(torch.randn(1, 3)) for _ in range(2)]
    xs = [bl.argmin(energy, **ITERATED) for energy in energies]
    known = bl.Lipschitz(loss=1.0, mixed=1.0)
    with pytest.raises(ValueError, match="for a loss of one solution, .* got 2 adjoint solves"):
        bl.hypergradient((xs[0] + xs[1]).square().sum(), [w], lipschitz=known)


@pytest.mark.parametrize("tol", [1e-3, 1e-5, 1e-7])
def test_the_drift_of_non_smooth_problems(tol):
    """A lasso, stopped early: the error to a tenth, once the support is found."""
    rng = torch.Generator().manual_seed(1)
    A, b = torch.randn(30, 12, generator=rng), torch.randn(1, 30, generator=rng)

    def gradient(tol, probe):
        w = torch.tensor(2.0).requires_grad_()
        x = bl.argmin(
            bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.L1(), tol=tol, solver=bl.ForwardBackward()
        )
        (found,), certificate = bl.hypergradient(x.square().sum(), [w], probe=probe)
        return found, certificate

    exact, _ = gradient(1e-14, False)
    found, certificate = gradient(tol, True)
    error = float((found - exact).abs() / exact.abs())
    assert certificate.drift == pytest.approx(error, rel=0.1, abs=1e-11)


def test_strategies_without_a_second_derivative_have_no_drift():
    w = torch.tensor(0.3).requires_grad_()
    x = bl.argmin(bl.LeastSquares(torch.randn(1, 4)) + w * bl.L1(), diff=bl.Truncated(5))
    _, certificate = bl.hypergradient(x.sum(), [w], probe=True)
    assert certificate.drift is None and certificate.estimate is not None


def test_the_drift_is_relative_to_the_exact_gradient():
    """A gradient that is a hundredth of the exact one is off by 0.99, not by a hundred times."""
    weight = torch.tensor(1.0).requires_grad_()
    A = bl.Matrix(torch.tensor([[1.0, 0.0], [0.0, 0.1]]))
    energy = bl.LeastSquares(weight * torch.ones(1, 2)) @ A  # x = weight (1, 10)
    x = bl.argmin(energy, x0=torch.zeros(1, 2), max_iter=1, **ITERATED)
    (found,), certificate = bl.hypergradient(x[0, 1].square(), [weight], probe=True)
    error = float((found - 200.0).abs() / 200.0)
    assert error > 0.9
    assert certificate.drift == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize(
    "known, estimate",
    [
        (dict(), 0.3 + 0.04),  # of the residual and the adjoint's
        (dict(drift=0.1), 0.1 + 0.04),
        (dict(drift=0.1, inconsistency=1e-3), 0.1 + 1e-3),
        (dict(drift=0.1, inconsistency=1e-3, bound=0.02), 0.02),
    ],
)
def test_what_is_known_best_makes_the_estimate(known, estimate):
    certificate = bl.Certificate(
        residual=torch.tensor([0.3]), adjoint_residual=torch.tensor([0.04]), **known
    )
    certificate.update_estimate()
    assert certificate.estimate == pytest.approx(estimate)
