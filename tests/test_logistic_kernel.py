"""Logistic regression by the compiled Newton method, held to the one in torch."""

import pytest
import torch

import bilevel as bl
from bilevel.iteration.driver import Run
from bilevel.kernels.newton import logistic
from bilevel.solvers import newton
from bilevel.solvers.logistic_regression import logistic_regression

D = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def of_columns(m, n):
    return drawn(n, m).mT


def part_of(B, m, n):
    return drawn(B, 2 * m, n)[:, :m]


CASES = {  # (matrix, samples, weight of the rows, ridge, center)
    "one": (drawn(30, 1), 1, 1.0, 0.5, 0.0),
    "by columns": (of_columns(40, 6), 2, 1 / 40, torch.rand(6, dtype=D) / 10, drawn(2, 6)),
    "one a sample": (part_of(3, 25, 5), 3, drawn(25).abs(), torch.tensor(0.1, dtype=D), 0.3),
    "weights a sample": (drawn(50, 7), 4, drawn(4, 50).abs(), drawn(4, 1).abs() + 0.1, drawn(7)),
    "large steps": (30 * drawn(60, 9), 2, 1.0, 1e-3, 0.0),  # shortened until the energy falls
    "largest": (drawn(300, 128), 1, 1.0, 1.0, 0.0),
}


def posed(name):
    matrix, samples, weight, ridge, center = CASES[name]
    labels = drawn(samples, matrix.shape[-2], seed=1).sign()
    energy = bl.Logistic(labels, weight=weight) @ bl.Matrix(matrix)
    energy = energy + ridge * bl.LeastSquares(center) + 0.01 * bl.LeastSquares()
    return energy, torch.zeros(samples, matrix.shape[-1], dtype=D)


@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_newton_in_torch(monkeypatch, name):
    energy, x0 = posed(name)
    model = logistic_regression(energy.f, x0)
    assert model is not None
    with torch.no_grad():
        x, factor, steps = logistic(*model, x0, 1e-8, 200)
        monkeypatch.setattr(newton, "logistic_regression", lambda *_: None)
        solver = bl.Newton().prepare(energy, x0)
        (expected,), count = solver.solve(energy, (x0,), Run(bl.Armijo(), 1e-8, 200))
        (there, H), *_ = solver.seen
    torch.testing.assert_close(x, expected, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(factor, H.data, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(factor, factor.tril())
    assert (steps <= count).all() and steps.max() == count.max()  # torch steps with the slowest


@pytest.mark.parametrize("name", CASES)
def test_a_sample_is_solved_as_if_alone_on_any_number_of_threads(name):
    energy, x0 = posed(name)
    before, answers, last = torch.get_num_threads(), [], torch.tensor([len(x0) - 1])
    with torch.no_grad():
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                answers.append(logistic(*logistic_regression(energy.f, x0), x0, 1e-8, 200))
        finally:
            torch.set_num_threads(before)
        one = energy.take(last, x0)
        alone = logistic(*logistic_regression(one.f, x0[last]), x0[last], 1e-8, 200)
    for first, second, sample in zip(*answers, alone, strict=True):
        assert torch.equal(first, second) and torch.equal(first[last], sample)


def test_all_that_it_is_built_from_has_first_and_second_derivatives():
    labels = drawn(2, 12, seed=1).sign()
    θ = drawn(12, 3), drawn(3).abs() + 0.1, drawn(2, 12, seed=2).abs(), drawn(2, 3, seed=3)

    def solution(A, ridge, weight, center):
        energy = bl.Logistic(labels, weight=weight) @ bl.Matrix(A) + ridge * bl.LeastSquares(center)
        return bl.argmin(energy, solver=bl.Newton(), tol=1e-10)

    θ = tuple(part.requires_grad_() for part in θ)
    assert torch.autograd.gradcheck(solution, θ)
    assert torch.autograd.gradgradcheck(solution, θ)


def test_the_run_tells_what_the_kernel_found():
    labels, x0 = drawn(4, 50, seed=1).sign(), torch.zeros(4, 7, dtype=D)
    energy = bl.Logistic(labels) @ bl.Matrix(drawn(50, 7)) + 0.1 * bl.LeastSquares()
    told = bl.solve(energy, x0=x0, solver=bl.Newton()).certificate
    assert told.solver == "Newton" and told.converged.all()
    assert told.residual.max() < 1e-9 and told.gap.abs().max() < 1e-12
    assert (told.iterations >= 3).all()
    with pytest.raises(bl.NotConverged, match="after 2 steps of Newton"):
        bl.solve(energy, x0=x0, solver=bl.Newton(), max_iter=2)


def test_what_the_kernel_cannot_do_torch_does(monkeypatch):
    A = drawn(20, 4)
    A = torch.cat([A, A[:, :1]], 1)  # a Hessian that is singular
    labels, x0 = drawn(1, 20, seed=1).sign(), torch.zeros(1, 5, dtype=D)
    energy = bl.Logistic(labels) @ bl.Matrix(A) + 0.0 * bl.LeastSquares()
    assert logistic(*logistic_regression(energy.f, x0), x0, 1e-8, 200) is None
    x = bl.solve(energy, x0=x0, solver=bl.Newton(), on_fail="ignore").x
    assert bl.Problem(energy.terms).f.grad(x).abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_only_double_precision_is_taken(dtype):
    labels, x0 = drawn(1, 9).sign().to(dtype), torch.zeros(1, 4, dtype=dtype)
    energy = bl.Logistic(labels) @ bl.Matrix(drawn(9, 4).to(dtype)) + bl.LeastSquares()
    assert (logistic_regression(energy.f, x0) is None) == (dtype == torch.float32)
    assert bl.solve(energy, x0=x0, solver=bl.Newton()).x.dtype == dtype
