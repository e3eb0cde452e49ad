"""Solution.degrees_of_freedom: the trace of the Jacobian, and the closed forms known of it."""

import pytest
import torch
from torch import Tensor

import bilevel as bl
from registry import Draw
from test_partly_smooth import CASES

pytestmark = pytest.mark.usefixtures("float64")


def freedom(energy) -> Tensor:
    return bl.solve(energy, tol=1e-12, max_iter=100_000).degrees_of_freedom


def trace(solution, y: Tensor) -> Tensor:  # -> (B,)
    """Of the Jacobian of every sample's solution, one backward pass a number."""
    at = y.clone().requires_grad_()
    x = solution(at).flatten(1)
    rows = [torch.autograd.grad(x[:, i].sum(), at, retain_graph=True)[0] for i in range(x.shape[1])]
    return torch.stack([row.flatten(1)[:, i] for i, row in enumerate(rows)]).sum(0)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_trace_of_the_jacobian_for_every_term(case):
    """Of the prox, differentiated by autograd; of composed terms by backward passes."""
    draw = Draw(4, case.event)
    term, y = case.make(draw), 1.5 * draw.x()

    def solution(y: Tensor) -> Tensor:
        if isinstance(term, bl.Proximable):
            return term.prox(y, 1.0)
        return bl.argmin(bl.LeastSquares(y) + term, tol=1e-12, diff=bl.PartlySmooth())

    torch.testing.assert_close(
        freedom(bl.LeastSquares(y) + term), trace(solution, y), rtol=1e-6, atol=1e-6
    )


# Closed forms


def data() -> tuple[Tensor, bl.Smooth]:
    A = Draw(1, (6,)).normal(8, 6)
    return A, bl.LeastSquares(2 * Draw(3, (8,)).x()) @ bl.Matrix(A)


def test_ridge():
    """tr A (A*A + w)^-1 A*."""
    A, fit = data()
    hat = A @ torch.linalg.solve(A.mT @ A + 0.7 * torch.eye(6), A.mT)
    torch.testing.assert_close(freedom(fit + 0.7 * bl.LeastSquares()), hat.trace().expand(3))


@pytest.mark.parametrize("ridge", [0.0, 0.5])
def test_lasso_and_elastic_net(ridge):
    """The nonzeros (Zou, Hastie, Tibshirani 2007); with a ridge tr A_I (A_I* A_I + w)^-1 A_I*."""
    A, fit = data()
    solution = bl.solve(fit + 3.0 * bl.L1() + ridge * bl.LeastSquares(), tol=1e-12)
    expected = []
    for x in solution.x:
        on = A[:, x != 0]
        inner = on.mT @ on
        expected.append(torch.linalg.solve(inner + ridge * torch.eye(len(inner)), inner).trace())
    torch.testing.assert_close(solution.degrees_of_freedom, torch.stack(expected))
    if not ridge:
        assert solution.degrees_of_freedom.round().tolist() == solution.x.ne(0).sum(1).tolist()
        assert 0 < solution.x.ne(0).sum() < 18


def test_two_equal_columns_count_once():
    A, _ = data()
    twice = torch.cat([A, A], 1)
    fit = bl.LeastSquares(2 * Draw(3, (8,)).x())
    once, both = (freedom(fit @ bl.Matrix(M) + 3.0 * bl.L1()) for M in (A, twice))
    torch.testing.assert_close(once, both)


def test_groups_shrink():
    """A group of p numbers beyond the threshold w has 1 + (p - 1) (1 - w / |y|) (Yuan, Lin
    2006)."""
    y = 2 * Draw(3, (4, 5)).x()
    length = torch.linalg.vector_norm(y, dim=-1)
    expected = torch.where(length > 3, 1 + 4 * (1 - 3 / length), 0.0).sum(1)
    torch.testing.assert_close(freedom(bl.LeastSquares(y) + 3.0 * bl.L21()), expected)


def test_singular_values_shrink():
    """Of m x n matrices, m < n, sum over s_i > w of 1 + (n - m) (1 - w / s_i), and of
    2 s_i (s_i - w) / (s_i^2 - s_j^2) over j != i (Candes, Sing-Long, Trzasko 2013)."""
    y, w = Draw(2, (3, 5)).x(), 1.5
    s = torch.linalg.svdvals(y)
    left = (s - w).clamp(min=0)
    square = s.square()
    differences = (square[:, :, None] - square[:, None]).masked_fill(torch.eye(3) > 0, torch.inf)
    pairs = 2 * ((s * left)[:, :, None] / differences).sum((1, 2))
    expected = (s > w).sum(1) + 2 * (left / s).sum(1) + pairs
    torch.testing.assert_close(freedom(bl.LeastSquares(y) + w * bl.Nuclear()), expected)


def test_analysis_by_the_kernel_of_what_is_held_at_0():
    """|Dx|_1: dim ker D_J, J where Dx is 0, for A is injective (Vaiter et al. 2013)."""
    _, fit = data()
    D = torch.cat([torch.eye(6), torch.eye(6).diff(dim=0)])
    x = bl.solve(fit + 2.0 * bl.L1() @ bl.Matrix(D), tol=1e-12, max_iter=100_000)
    held = [D[(D @ sample).abs() < 1e-6] for sample in x.x]
    expected = [6 - int(torch.linalg.matrix_rank(rows)) for rows in held]
    assert x.degrees_of_freedom.round().tolist() == expected and 0 < min(expected) < 6


def test_flat_zones():
    label = pytest.importorskip("skimage.measure").label
    y = Draw(2, (1, 8, 8)).x()
    solution = bl.solve(bl.LeastSquares(y) + 0.5 * bl.TotalVariation(isotropic=False), tol=1e-12)
    levels = (1e7 * (solution.x - solution.x.min())).round().int().numpy()[:, 0]
    zones = [int(label(image, background=-1, connectivity=1).max()) for image in levels]
    torch.testing.assert_close(solution.degrees_of_freedom, torch.tensor(zones).double())


def test_segments_of_a_signal():
    y = Draw(3, (30,)).x()
    expected = bl.TotalVariation1D(weight=0.8).degrees_of_freedom(y)
    got = freedom(bl.LeastSquares(y) + 0.8 * bl.TotalVariation(dims=1))
    torch.testing.assert_close(got, expected.double())


# Input


def test_what_has_no_data_and_what_is_too_large():
    with pytest.raises(ValueError, match="got Huber \\+ L1"):
        freedom(bl.Huber(0.5, torch.ones(1, 3)) + 0.1 * bl.L1())
    with pytest.raises(ValueError, match=r"\(1, 1, 30, 30\). sure\(..., step=0\) estimates"):
        freedom(bl.LeastSquares(Draw(1, (1, 30, 30)).x()) + 0.1 * bl.TotalVariation())
