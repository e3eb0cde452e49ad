"""Celer: sparse linear models by another library, certified and differentiated by ours."""

import numpy as np
import pytest
import scipy.sparse
import torch

import bilevel as bl
from bilevel.solvers import celer

pytest.importorskip("celer")


def lasso(rows=30, columns=80, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(batch, rows, columns, generator=generator, dtype=torch.float64)
    x = torch.zeros(batch, columns, dtype=torch.float64)
    x[:, :5] = torch.randn(batch, 5, generator=generator, dtype=torch.float64) + 2
    noise = 0.1 * torch.randn(batch, rows, generator=generator, dtype=torch.float64)
    return A, (A @ x[..., None])[..., 0] + noise


PENALTIES = {
    "L1": lambda w: w * bl.L1(),
    "L1, per feature": lambda w: w * torch.linspace(0.5, 2, 80, dtype=torch.float64) * bl.L1(),
    "ElasticNet": lambda w: w * bl.ElasticNet(0.6),
}


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("rows_weight", [0.7, "per row", "folds"])
def test_as_forward_backward(name, rows_weight):
    A, b = lasso(batch=2)
    if rows_weight == "per row":
        rows_weight = torch.linspace(0.2, 1, 30, dtype=torch.float64)
    elif rows_weight == "folds":
        rows_weight = torch.ones(2, 30, dtype=torch.float64)
        rows_weight[0, :10] = rows_weight[1, 20:] = 0
    w = torch.tensor([[3.0], [5.0]], dtype=torch.float64, requires_grad=True)
    A.requires_grad_(), b.requires_grad_()
    energy = bl.LeastSquares(b, weight=rows_weight) @ bl.Matrix(A) + PENALTIES[name](w)
    answers = []
    for solver in (bl.Celer(), bl.ForwardBackward()):
        x = bl.argmin(energy, solver=solver, tol=1e-11)
        loss = x.sin().sum()
        answers.append((x, *torch.autograd.grad(loss, [w, A, b], retain_graph=True)))
    for ours, other in zip(*answers, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-7)


def test_second_order():
    A, b = lasso(rows=12, columns=20)
    matrix = bl.Matrix(A[0])

    def solution(w, b):
        return bl.argmin(bl.LeastSquares(b) @ matrix + w * bl.L1(), solver=bl.Celer())

    w = torch.tensor(0.9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solution, (w, b.requires_grad_()))
    assert torch.autograd.gradgradcheck(lambda w, b: solution(w, b) ** 2, (w, b))


def test_logistic():
    A, b = lasso()
    w = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    energy = bl.Logistic(b.sign()) @ bl.Matrix(A) + w * bl.L1()
    answers = []
    for solver in (bl.Celer(), bl.ForwardBackward()):
        x = bl.argmin(energy, solver=solver, tol=1e-10, max_iter=100_000)
        answers.append((x, *torch.autograd.grad(x.square().sum(), w, retain_graph=True)))
    for ours, other in zip(*answers, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("centre", [False, True])
def test_sparse(centre):
    A, b = lasso()
    A = torch.where(A.abs() > 1, A, 0.0)[0]
    mean = A.mean(0).numpy() if centre else None
    dense = bl.Matrix(A - (A.mean(0) if centre else 0))
    sparse = bl.SparseMatrix(scipy.sparse.csr_array(A.numpy()), mean)
    w = torch.full((80,), 1.5, dtype=torch.float64, requires_grad=True)
    answers = []
    for operator in (dense, sparse):
        energy = bl.LeastSquares(b) @ operator + w * bl.L1()
        report = bl.Certificate()
        x = bl.argmin(energy, solver=bl.Celer(), report=report)
        answers.append((x, *torch.autograd.grad(x.square().sum(), w, retain_graph=True)))
        assert report.residual < 1e-10 and report.adjoint_iterations == 0
    for ours, other in zip(*answers, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-9, atol=1e-9)


def test_zero_is_a_solution():
    A, b = lasso()
    w = torch.tensor(1e6, dtype=torch.float64, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.L1(), solver=bl.Celer())
    x.sum().backward()
    assert not x.any() and w.grad == 0


@pytest.mark.parametrize("start", [0.0, 1e-3, -5.0])
def test_the_step_alone_gets_there(start):
    """T from any start, without celer: the energy falls."""
    A, b = lasso(rows=20, columns=10)
    problem = bl.LeastSquares(b) @ bl.Matrix(A) + 3.0 * bl.L1()
    solver, x = bl.Celer(), torch.full((1, 10), start, dtype=torch.float64)
    for _ in range(50):
        before, (x,) = problem.value(x), solver.step(problem, (x,))
        assert problem.value(x) <= before * (1 + 1e-12)
    torch.testing.assert_close(x, bl.solve(problem, tol=1e-12).x)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64, bool])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("solver", [None, bl.Celer()], ids=str)
def test_a_sparse_matrix_of_any_kind_of_number(kind, dtype, solver):
    dense = (10 * np.random.default_rng(0).random((20, 8)) - 6).clip(0).astype(kind)
    y, weight = torch.ones(1, 20, dtype=dtype), torch.tensor(0.5, dtype=dtype, requires_grad=True)
    found = []
    for A in (bl.SparseMatrix(scipy.sparse.csr_array(dense)), bl.Matrix(torch.tensor(dense).to(y))):
        x = bl.argmin(bl.LeastSquares(y) @ A + weight * bl.L1(), solver=solver)
        found += [x, torch.autograd.grad(x.sum(), weight)[0]]
        assert x.dtype == dtype
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-4, atol=1e-5)


def test_refusals():
    A, b = lasso()
    data = bl.LeastSquares(b) @ bl.Matrix(A)
    with pytest.raises(TypeError, match="Celer needs .* got LeastSquares @ Matrix . Box"):
        bl.argmin(data + bl.Box(0.0, 1.0), solver=bl.Celer())
    with pytest.raises(ValueError, match="Celer needs a positive weight in L1, got a least of 0"):
        bl.argmin(data + torch.zeros(80, dtype=torch.float64) * bl.L1(), solver=bl.Celer())
    with pytest.raises(TypeError, match="Celer needs L1 beside Logistic, got ElasticNet"):
        bl.argmin(bl.Logistic(b.sign()) @ bl.Matrix(A) + bl.ElasticNet(), solver=bl.Celer())
    with pytest.raises(TypeError, match="SparseMatrix needs a sparse array of scipy.sparse"):
        bl.SparseMatrix(np.eye(3))
    with pytest.raises(ValueError, match="SparseMatrix is NaN or inf in 3 of 3 values"):
        bl.SparseMatrix(scipy.sparse.eye_array(3) * np.nan)
    with pytest.raises(ValueError, match="needs a mean of shape"):
        bl.SparseMatrix(scipy.sparse.eye_array(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"needs x of shape \(B, 3\)"):
        bl.SparseMatrix(scipy.sparse.eye_array(3))(torch.zeros(3, dtype=torch.float64))


def test_a_sparse_matrix_with_nan_is_refused():
    matrix = scipy.sparse.csc_array(lasso()[0][0].numpy())
    matrix.data[7] = np.nan
    with pytest.raises(ValueError, match="SparseMatrix is NaN or inf in 1 of 2400 values"):
        bl.SparseMatrix(matrix)


@pytest.mark.parametrize("tiny", [[], [1e-14], [1e-14, -2e-14]], ids=str)
def test_a_step_cut_short_proves_nothing(monkeypatch, tiny):
    """T goes to the first change of sign: an entry that is tiny makes it tiny."""
    A, b = lasso()
    w = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    energy, report = bl.LeastSquares(b) @ bl.Matrix(A) + w * bl.L1(), bl.Certificate()
    exact = bl.solve(energy, solver=bl.Celer(), tol=1e-12).x
    rough = 0.9 * exact
    unused = (exact[0] == 0).nonzero()[: len(tiny), 0]
    rough[0, unused] = torch.tensor(tiny, dtype=torch.float64)
    monkeypatch.setattr(celer, "_celer", lambda *_: (rough[0], 1))
    x = bl.argmin(energy, solver=bl.Celer(), report=report)
    torch.testing.assert_close(x.detach(), exact, rtol=1e-9, atol=1e-11)
    assert report.gap.max() < 1e-8
