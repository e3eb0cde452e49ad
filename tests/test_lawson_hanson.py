"""LawsonHanson: against SciPy sample by sample, its derivative, what it refuses."""

import numpy as np
import pytest
import torch
from scipy.optimize import nnls

import bilevel as bl
from bilevel import testing

D = torch.float64
LS, Matrix, LH = bl.LeastSquares, bl.Matrix, bl.LawsonHanson


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(9, 6), (9, 30), (7, 9, 6), (7, 9, 30)], ids=str)
def test_against_scipy(shape):
    A, b = drawn(*shape).abs(), drawn(7, 9, seed=1) + 1
    b[0], b[1] = -1, 0  # where 0 is the solution
    x0 = torch.zeros(7, shape[-1], dtype=D)
    solution = bl.solve(LS(b) @ Matrix(A) + bl.NonNegative(), x0=x0, solver=LH(), tol=1e-10)
    exact = [nnls(a.numpy(), row.numpy())[0] for a, row in zip(A.expand(7, 9, -1), b, strict=True)]
    np.testing.assert_allclose(solution.x.numpy(), exact, rtol=1e-8, atol=1e-10)
    assert solution.certificate.solver == "LawsonHanson" and not solution.x[:2].any()


def test_more_unknowns_than_rows_in_the_simplex():
    A, b = drawn(9, 30).abs(), drawn(7, 9, seed=1)
    energy = LS(b) @ Matrix(A) + bl.Simplex(2.0)
    x0 = torch.zeros(7, 30, dtype=D)
    x, exact = (bl.solve(energy, x0=x0, solver=s).x for s in (LH(), bl.InteriorPoint()))
    torch.testing.assert_close(x, exact, rtol=1e-7, atol=1e-8)


def test_twice_the_same_column_and_columns_of_zeros():
    A, b = drawn(9, 4).abs(), drawn(7, 9, seed=1) + 1
    x0 = torch.zeros(7, 10, dtype=D)
    wide = torch.cat([A, A, 0 * A[:, :2]], 1)
    x = bl.solve(LS(b) @ Matrix(wide) + bl.NonNegative(), x0=x0, solver=LH()).x
    exact = bl.solve(LS(b) @ Matrix(A) + bl.NonNegative(), x0=x0[:, :4], solver=LH()).x
    torch.testing.assert_close(x @ wide.mT, exact @ A.mT, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("penalty", [bl.NonNegative(), bl.Simplex()], ids=repr)
def test_every_parameter_has_its_derivatives(penalty):
    def solution(A, b, weight):
        energy = LS(b) @ Matrix(A) + weight * LS() + penalty
        return bl.argmin(energy, x0=torch.zeros(2, 4, dtype=D), solver=LH(), tol=1e-12)

    weight = torch.tensor(0.3, dtype=D)
    testing.gradcheck(solution, (drawn(5, 4), 2 * drawn(2, 5, seed=3), weight))


def test_a_batch_is_its_samples():
    A, b = drawn(9, 12), drawn(5, 9, seed=2)
    testing.batch_is_alone(
        lambda index: bl.Quadratic(A.mT @ A, -b[index] @ A) + bl.NonNegative(),
        5, ulp=1e5, solver=LH(),
    )  # fmt: skip


def test_float32_and_an_empty_batch():
    A, b = drawn(9, 6), drawn(7, 9, seed=1)
    x = bl.solve(
        LS(b.float()) @ Matrix(A.float()) + bl.NonNegative(), x0=torch.zeros(7, 6), solver=LH()
    ).x
    exact = bl.solve(LS(b) @ Matrix(A) + bl.NonNegative(), x0=x.double(), solver=LH()).x
    torch.testing.assert_close(x.double(), exact, rtol=0, atol=1e-5)
    none = bl.solve(LS(b[:0]) @ Matrix(A) + bl.NonNegative(), x0=exact[:0], solver=LH()).x
    assert none.shape == (0, 6)


def test_refusals():
    b = drawn(3, 4)
    x0 = torch.zeros(3, 4, dtype=D)
    with pytest.raises(TypeError, match=r"NonNegative\(\) or Simplex\(\).*InteriorPoint"):
        bl.solve(LS(b) + bl.Box(0.0, 1.0), x0=x0, solver=LH())
    with pytest.raises(TypeError, match="a quadratic f"):
        bl.solve(bl.Huber(0.1, b) + bl.NonNegative(), x0=x0, solver=LH())
    with pytest.raises(ValueError, match=r"needs x of shape \(B, n\)"):
        bl.solve(LS(b[..., None]) + bl.NonNegative(), x0=x0[..., None], solver=LH())
    with pytest.raises(bl.NotConverged, match="of LawsonHanson"):
        bl.solve(LS(b + 9) + bl.NonNegative(), x0=x0, solver=LH(), max_iter=1)
