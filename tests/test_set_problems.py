"""Constraints and norms inside problems: certified solutions, derivatives, errors."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from registry import Draw

F64 = torch.float64


def normal(*shape, seed=0):
    return Draw(seed=seed).normal(*shape)


A, data = normal(8, 5, seed=1), normal(2, 8, seed=2)
SQUARE = normal(2, 4, 4, seed=3)


LEVELS = torch.linspace(2, 1, 5, dtype=F64)


def regression(data):
    return bl.LeastSquares(data) @ bl.Matrix(A)


# (a function of data and a parameter -> the energy, data, the parameter, tol)
PROBLEMS = {
    "l1 ball": (lambda d, r: regression(d) + bl.L1Ball(r), data, 0.6),
    "sup norm": (lambda d, r: regression(d) + r * bl.Linf(), data, 0.9),
    "slope": (lambda d, r: regression(d) + r * bl.SortedL1(LEVELS), data, 0.5),
    "plane and box": (
        lambda d, r: regression(d) + bl.HyperplaneBox(torch.ones(5, dtype=F64), r, -0.2, 0.3),
        data, 0.4),
    "half-space": (
        lambda d, r: regression(d) + bl.HalfSpace(torch.ones(5, dtype=F64), -r), data, 0.7),
    "affine": (
        lambda d, r: regression(d) + bl.Affine(A[:2], r * torch.ones(2, dtype=F64)), data, 0.7),
    "isotonic regression": (lambda d, r: regression(r * d) + bl.Monotone(), data, 0.7),
    "nuclear norm": (lambda d, r: bl.Huber(0.3, d) + r * bl.Nuclear(), SQUARE, 0.3),
    "nuclear ball": (lambda d, r: bl.Huber(0.3, d) + bl.NuclearBall(r), SQUARE, 1.5),
    "spectral ball": (
        lambda d, r: bl.LeastSquares(d) + bl.SpectralBall(r) + 0.1 * bl.L1(), SQUARE, 0.8),
    "semidefinite": (
        lambda d, r: bl.LeastSquares(d) + bl.PositiveSemidefinite() + r * bl.L1(), SQUARE, 0.2),
    "l1-inf ball": (lambda d, r: bl.LeastSquares(d) + bl.L1InfBall(r) + 0.1 * bl.L1(), SQUARE, 1.5),
    "trend in a cone": (
        lambda d, r: bl.LeastSquares(d) + r * bl.TotalVariation(1) + bl.SecondOrderCone(),
        data, 0.2),
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_derivative_of_a_solution_is_that_of_differences(name):
    energy, d, r = PROBLEMS[name]
    r = torch.tensor(r, dtype=F64)
    testing.gradients_agree(lambda d, r: bl.argmin(energy(d, r), tol=1e-11), [d, r])


@pytest.mark.parametrize("name", ["l1 ball", "sup norm", "slope", "plane and box"])
def test_a_gap_certifies_the_solution(name):
    """Problems with a data term through a matrix: the conjugate of the term is what bounds them."""
    energy, d, r = PROBLEMS[name]
    certificate = bl.solve(energy(d, torch.tensor(r, dtype=F64)), tol=1e-9).certificate
    assert certificate.gap is not None and (certificate.gap <= 1e-9).all()


def test_a_dual_of_a_composed_norm_certifies():
    """LeastSquares has the conjugate, the norms of Kx the domains of the duals."""
    K = bl.Matrix(normal(6, 5, seed=5))
    levels = torch.linspace(1, 0.5, 6, dtype=F64)
    for term in (bl.Linf(), bl.SortedL1(levels)):
        certificate = bl.solve(bl.LeastSquares(data[:, :5]) + term @ K, tol=1e-8).certificate
        assert certificate.gap is not None and (certificate.gap <= 1e-8).all(), term


def test_completing_a_matrix_of_low_rank():
    """Optimality, by singular values: u = -grad / w has |u|_2 <= 1 and <u, x> = |x|_*."""
    truth = normal(1, 12, 1, seed=1) @ normal(1, 1, 12, seed=2)
    mask = (torch.rand(12, 12, generator=torch.Generator().manual_seed(0)) < 0.8).to(F64)
    w = 1e-2
    x = bl.argmin(mask * bl.LeastSquares(mask * truth) + w * bl.Nuclear(), tol=1e-10)
    u, nuclear = mask * (truth - x) / w, torch.linalg.matrix_norm(x, "nuc")
    assert torch.linalg.matrix_norm(u, 2) <= 1 + 1e-6
    torch.testing.assert_close((u * x).sum((1, 2)), nuclear, rtol=1e-6, atol=0)
    assert (x - truth).norm() < 0.05 * (mask * truth - truth).norm()


def test_sparse_problems_end_in_a_point_that_is_optimal_on_its_support():
    x = bl.solve(regression(data) + bl.L0Ball(2)).x
    assert ((x != 0).sum(1) == 2).all()
    for sample, target in zip(x, data, strict=True):
        support = sample != 0
        best = torch.linalg.lstsq(A[:, support], target).solution
        torch.testing.assert_close(sample[support], best, rtol=1e-6, atol=1e-6)


LS, y, ones = bl.LeastSquares, data[:, :5], torch.ones(5, dtype=F64)

BAD = [
    (lambda: LS(y) + bl.HalfSpace(0 * ones), r"HalfSpace.normal is 0 .* Leave the term out"),
    (lambda: LS(y) + bl.Hyperplane(torch.stack([ones, 0 * ones])), r"Hyperplane.normal is 0"),
    (lambda: LS(y) + bl.HalfSpace(ones, torch.ones(2, dtype=F64)),
     r"HalfSpace.offset has shape \(2,\).*offset.reshape\(-1, 1\)"),
    (lambda: LS(y) + bl.HalfSpace(torch.ones(4, dtype=F64)), r"HalfSpace.normal has shape \(4,\)"),
    (lambda: LS(y) + bl.HyperplaneBox(ones, 7.0, -1.0, 1.0),
     r"HyperplaneBox is empty in sample 0: .* lies between -5 and 5, offset is 7. Move offset"),
    (lambda: LS(y) + bl.HyperplaneBox(ones, 0.0, 1.0, -1.0), r"HyperplaneBox is empty: lower, up"),
    (lambda: LS(y) + bl.SortedL1(torch.arange(5.0, dtype=F64)),
     r"SortedL1.levels must be >= 0 and must not increase"),
    (lambda: LS(y) + bl.SortedL1(torch.ones(4, dtype=F64)),
     r"SortedL1.levels has shape \(4,\), x \(2, 5\): one level for each of its 5 entries"),
    (lambda: LS(y) + bl.Affine(torch.ones(2, 5, dtype=F64), torch.ones(2, dtype=F64)),
     r"Affine.matrix of shape \(2, 5\) has rank 1 for 2 rows: .* L2Ball\(eps, target\) @ Matrix"),
    (lambda: LS(y) + bl.Affine(torch.ones(1, 4, dtype=F64), torch.ones(1, dtype=F64)),
     r"Affine.matrix has shape \(1, 4\), target \(1,\), x \(2, 5\): one column for each entry"),
    (lambda: LS(y) + bl.L21Ball(torch.ones(2, dtype=F64)), r"L21Ball.radius has shape \(2,\)"),
    (lambda: LS(y) + bl.L1Ball(-1.0), r"L1Ball.radius = -1: a radius must be >= 0"),
    (lambda: LS(y) + bl.L1Inf(dim=3), r"L1Inf has dim=3 .* must name a dim of the event"),
    (lambda: LS(y) + bl.Nuclear(), r"matrices are the last two dims of x, .* got \(2, 5\)"),
    (lambda: LS(y) + bl.PositiveSemidefinite(), r"needs square matrices .* got \(2, 5\)"),
    (lambda: LS(SQUARE[:, :3]) + bl.PositiveSemidefinite(), r"square matrices .* got \(2, 3, 4\)"),
]  # fmt: skip


def test_a_normal_is_a_tensor():
    with pytest.raises(TypeError, match=r"HalfSpace.normal must be a tensor .* got float. For the"):
        bl.argmin(LS(y) + bl.HalfSpace(1.0))


@pytest.mark.parametrize("energy, message", BAD)
def test_what_contradicts_itself_is_told(energy, message):
    with pytest.raises(ValueError, match=message):
        bl.argmin(energy())


@pytest.mark.parametrize("make, message", [
    (lambda: bl.L0Ball(-1), r"L0Ball.count must be an integer >= 0, got -1"),
    (lambda: bl.L0Ball(1.5), r"L0Ball.count must be an integer >= 0, got 1.5"),
    (lambda: bl.Affine(ones, ones), r"Affine.matrix must be dense, \(m, n\) or \(B, m, n\), got"),
    (lambda: bl.Affine(A, ones), r"Affine.target must be .* of m = 8 rows, got \(5,\)"),
    (lambda: bl.SortedL1(1.0), r"SortedL1.levels must be a tensor \(n,\), .* got float"),
])  # fmt: skip
def test_fields_of_the_wrong_kind_are_refused_at_once(make, message):
    with pytest.raises(ValueError, match=message):
        make()
