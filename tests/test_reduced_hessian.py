"""Newton steps on large supports: by products where the design is sparse."""

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.special import expit

import bilevel as bl
from bilevel.solvers.reduced_hessian import ReducedHessian

K = 1600  # more columns than are written out


@pytest.fixture
def random():
    return np.random.default_rng(0)


def _hessian(random, scale: np.ndarray, bend: float) -> tuple:
    """And its matrix, by SciPy: the identity where an entry is not used."""
    A = scipy.sparse.random(2400, K, 3e-3, "csc", rng=random) @ scipy.sparse.diags(scale)
    labels, x = np.sign(random.standard_normal(2400)), random.standard_normal(K)
    used = random.random(K) > 0.1
    f = bl.Logistic(_row(labels)) @ bl.SparseMatrix(A)
    hessian = ReducedHessian(f, _row(x), _row(used), _row(np.full(K, bend)))
    chance, inside = expit(A @ x), scipy.sparse.diags(used.astype(float))
    H = inside @ A.T @ scipy.sparse.diags(chance * (1 - chance)) @ A @ inside
    return hessian, H + scipy.sparse.diags(np.where(used, bend, 1.0))


def _row(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values)[None]


def _left(H, solved: torch.Tensor, v: torch.Tensor) -> float:
    """|v - H solved| / |v|"""
    rest = v.numpy()[0] - H @ solved.numpy()[0]
    return float(np.linalg.norm(rest) / v.norm())


def test_by_products(random):
    """Recorded, to rounding and in both directions; else to what a Newton step needs."""
    hessian, H = _hessian(random, np.ones(K), 0.1)
    v, u = (_row(random.standard_normal(K)) for _ in range(2))
    point = v.clone().requires_grad_()
    solved = hessian.solve(point)
    (slope,) = torch.autograd.grad(solved, point, u)
    assert _left(H, solved.detach(), v) < 1e-11 and _left(H, slope, u) < 1e-11
    with torch.no_grad():
        assert 1e-8 < _left(H, hessian.solve(v), v) < 1e-3
    assert not hessian.sound  # not known: to be measured


def test_by_the_factor_where_products_do_not_do(random):
    hessian, H = _hessian(random, np.logspace(0, -5, K), 1e-12)
    v = _row(H @ random.standard_normal(K))
    assert _left(H, hessian.solve(v.requires_grad_()).detach(), v.detach()) < 1e-8
    assert "_factor" in vars(hessian)
