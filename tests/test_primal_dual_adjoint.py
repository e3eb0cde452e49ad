"""The adjoint of the primal-dual iteration on |K u|_1 with u in a box, as it is published
(Brauer, Lorenz, EUSIPCO 2023), against the common strategies.

With the masks m_P (u inside its box) and m_D (psi inside its box) frozen at the solution, backward
step l makes delta_P^l and delta_D^l; the gradient in K is the sum over the steps of
sigma delta_D u*^T - tau psi* delta_P^T, so sigma Delta_D u*^T - tau psi* Delta_P^T with the sums
Delta: a matrix product, whatever the number of steps.
"""

import pytest
import torch

import bilevel as bl

D = torch.float64
SIZE, RADIUS = 8, 0.9


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def problem(K, x):
    return bl.L1() @ bl.Matrix(K) + bl.Box(x - RADIUS, x + RADIUS)


def setting(K, seed=1):
    """(x, the solution, the cotangent of u) for one sample."""
    x = drawn(1, K.shape[1], seed=seed)
    solution = bl.solve(problem(K, x), x0=x, tol=1e-13, max_iter=50_000, on_fail="ignore")
    assert solution.residual.max() < 1e-12
    return x, solution, drawn(1, K.shape[1], seed=seed + 1)


def published(K, x, solution, cotangent, steps):
    """(sums of delta_P and delta_D, the last of each, the masks)."""
    tau, sigma = solution.solver.step_size, solution.solver.dual_step_size
    u, (psi,) = solution.x, solution.dual
    m_p = ((u - tau * psi @ K - x).abs() < RADIUS).to(D)
    m_d = ((psi + sigma * u @ K.mT).abs() < 1).to(D)
    on_u, on_bar, on_psi = cotangent, torch.zeros_like(u), torch.zeros_like(psi)
    sum_p, sum_d = torch.zeros_like(u), torch.zeros_like(psi)
    delta_p = delta_d = None
    for _ in range(steps):
        delta_p = m_p * (on_u + 2 * on_bar)
        delta_d = m_d * (on_psi - tau * delta_p @ K.mT)
        on_u, on_bar, on_psi = delta_p - on_bar, sigma * delta_d @ K, delta_d
        sum_p, sum_d = sum_p + delta_p, sum_d + delta_d
    return (sum_p, sum_d), (delta_p, delta_d), (m_p, m_d)


def gradient(solution, sums):
    """sigma Delta_D u*^T - tau psi* Delta_P^T."""
    tau, sigma = solution.solver.step_size, solution.solver.dual_step_size
    (sum_p, sum_d), (psi,) = sums, solution.dual
    return sigma * sum_d.mT @ solution.x - tau * psi.mT @ sum_p


def by_strategy(K, x, cotangent, solution, diff):
    leaf = K.clone().requires_grad_()
    steps = {"step_size": solution.solver.step_size}
    steps["dual_step_size"] = solution.solver.dual_step_size
    u = bl.argmin(
        problem(leaf, x), x0=x, solver=bl.PrimalDual(**steps), diff=diff, tol=1e-13,
        max_iter=50_000, on_fail="ignore",
    )  # fmt: skip
    u.backward(cotangent)
    return leaf.grad


def error(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("terms", [1, 2, 9, 30])
def test_a_truncated_series_is_one_product(terms, seed):
    K = drawn(SIZE, SIZE, seed=10 + seed)
    x, solution, cotangent = setting(K, seed)
    sums, _, _ = published(K, x, solution, cotangent, terms)
    diff = bl.OneStep() if terms == 1 else bl.Truncated(terms)
    assert error(by_strategy(K, x, cotangent, solution, diff), gradient(solution, sums)) < 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_the_series_tends_to_the_derivative_of_the_vertex(seed):
    K = drawn(SIZE, SIZE, seed=10 + seed)
    x, solution, cotangent = setting(K, seed)
    sums, (delta_p, delta_d), _ = published(K, x, solution, cotangent, 20_000)
    assert max(delta_p.abs().max(), delta_d.abs().max()) < 1e-10  # the kernels are trivial
    exact = by_strategy(K, x, cotangent, solution, bl.FixedPoint())
    assert error(gradient(solution, sums), exact) < 1e-8


def repeated(seed):
    """A column and some rows twice: neither u nor psi is unique."""
    K = drawn(SIZE, SIZE - 1, seed=20 + seed)
    K = torch.cat([K, K[:, :1]], 1)
    return torch.cat([K, K[:4]])


@pytest.mark.parametrize("seed", range(3))
def test_the_limits_lie_in_the_kernels_of_the_masked_operator(seed):
    K = repeated(seed)
    x, solution, cotangent = setting(K, seed)
    _, (delta_p, delta_d), (m_p, m_d) = published(K, x, solution, cotangent, 30_000)
    active = m_d.mT * K * m_p  # diag(m_D) K diag(m_P)
    assert torch.linalg.matrix_rank(active) < min(int(m_p.sum()), int(m_d.sum()))
    assert torch.maximum(delta_p.norm(), delta_d.norm()) > 1e-3  # not for being 0
    assert (delta_p @ active.mT).norm() < 1e-10 and (delta_d @ active).norm() < 1e-10
