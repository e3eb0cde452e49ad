"""Factors of the Hessian of a smooth energy, shared by the end of a run and its derivative."""

import pytest
import torch

import bilevel as bl
from bilevel.iteration import polish
from bilevel.solvers import newton
from bilevel.solvers.forms import Rough, form, rough

D = torch.float64
SAMPLES, ROWS, FEATURES = 2, 240, 200


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


A = draw(ROWS, FEATURES)
LABELS = (A[:, :20].sum(1) + 3 * draw(SAMPLES, ROWS, seed=1)).sign()
BY_GRADIENTS = {"solver": bl.GradientDescent(), "acceleration": bl.LBFGS()}


def gradient(labels, A, w, tol=1e-10, **options):
    """(x, the gradient of a loss in a weight for each feature, the certificate)"""
    w = w.clone().requires_grad_()
    energy = bl.Logistic(labels, weight=1 / ROWS) @ bl.Matrix(A) + w * bl.LeastSquares()
    told, x0 = bl.Certificate(), torch.zeros(len(labels), FEATURES, dtype=A.dtype)
    x = bl.argmin(energy, x0=x0, tol=tol, report=told, **options)
    (g,) = torch.autograd.grad(x.sin().sum(), w)
    return x.detach(), g, told


@pytest.fixture(scope="module")
def by_factor():
    return gradient(LABELS, A, torch.full((FEATURES,), 1e-2, dtype=D), **BY_GRADIENTS)


def test_solution_and_gradient_are_those_of_newton(by_factor):
    x, g, told = by_factor
    exact, of_exact, _ = gradient(
        LABELS, A, torch.full((FEATURES,), 1e-2, dtype=D), solver=bl.Newton()
    )
    torch.testing.assert_close(x, exact, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(g, of_exact, rtol=1e-7, atol=1e-9)


def test_it_takes_few_steps_and_few_products(by_factor):
    told = by_factor[2]
    assert told.iterations.max() <= 40 and told.adjoint_iterations <= 6


def test_a_sample_ends_alone_as_in_company(by_factor):
    alone, _, _ = gradient(LABELS[:1], A, torch.full((FEATURES,), 1e-2, dtype=D), **BY_GRADIENTS)
    torch.testing.assert_close(alone, by_factor[0][:1], rtol=1e-12, atol=1e-13)


def test_without_a_factor_in_float32_products_do_it(by_factor, monkeypatch):
    singular = Rough(torch.full((SAMPLES, FEATURES, FEATURES), torch.nan, dtype=torch.float32))
    monkeypatch.setattr(polish, "rough", lambda f, x: singular)
    x, g, told = gradient(LABELS, A, torch.full((FEATURES,), 1e-2, dtype=D), **BY_GRADIENTS)
    assert told.adjoint_iterations > 6
    torch.testing.assert_close(x, by_factor[0], rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(g, by_factor[1], rtol=1e-7, atol=1e-9)


def test_a_singular_hessian_has_no_rough_form():
    f = bl.LeastSquares(draw(1, 2)) @ bl.Matrix(draw(2, 3))
    assert rough(f, draw(1, 3)).solve(draw(1, 3)).isnan().all()


def test_newton_takes_its_last_hessian_for_the_derivative(monkeypatch):
    made = []
    monkeypatch.setattr(newton, "form", lambda f, x: made.append(x) or form(f, x))
    w = torch.full((FEATURES,), 1e-2, dtype=D)
    told = gradient(LABELS[:1], A, w, tol=1e-8, solver=bl.Newton())[2]
    assert len(made) + 1 == told.iterations.item() <= 9  # the step that proves it has none


def test_newton_keeps_to_its_steps_and_takes_an_empty_batch():
    energy = bl.Logistic(LABELS) @ bl.Matrix(A) + 1e-2 * bl.LeastSquares()
    x0 = torch.zeros(SAMPLES, FEATURES, dtype=D)
    with pytest.raises(bl.NotConverged, match="after 2 steps of Newton"):
        bl.solve(energy, x0=x0, solver=bl.Newton(), max_iter=2)
    empty = bl.Logistic(LABELS[:0]) @ bl.Matrix(A) + bl.LeastSquares()
    assert bl.solve(empty, x0=x0[:0], solver=bl.Newton()).x.shape == (0, FEATURES)


@pytest.mark.parametrize("shape", [(1, 899, 64), (3, 240, 80)])
def test_the_gram_matrix_of_rows_with_weights(shape):
    """By symmetric products of the single samples, and by one of the batch."""
    matrix, positive = draw(*shape), draw(shape[0], shape[1], seed=1).abs()
    for weight in (positive, -positive, positive[:, :1].expand(shape[:2])):
        expected = torch.einsum("bmi,bm,bmj->bij", matrix, weight, matrix)
        torch.testing.assert_close(bl.Matrix(matrix).gram(weight), expected)


def test_the_norm_of_a_matrix_that_changes():
    matrix = draw(4, 3)
    operator, x = bl.Matrix(matrix), draw(1, 3)
    first = operator.norm(x)
    matrix.mul_(2)
    torch.testing.assert_close(operator.norm(x), 2 * first)
