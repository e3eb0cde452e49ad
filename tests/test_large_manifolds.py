"""Manifolds behind local operators, of more coordinates than dense algebra takes."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel.choice import default_solver, default_strategy
from bilevel.differentiation.active import Active
from bilevel.differentiation.linearisation import Linearisation
from bilevel.differentiation.local_maps import sparse_matrices
from bilevel.differentiation.sparse_saddle import Rows, Saddle
from bilevel.differentiation.sparse_tangent import Factored
from registry import Draw

pytestmark = pytest.mark.usefixtures("float64")

KERNEL = torch.outer(*[torch.tensor([1.0, 2, 4, 2, 1, 1, 1]).double() / 12] * 2)
BLUR, TV = bl.Blur(KERNEL), bl.TotalVariation
U, FIELD = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
FILTERS = bl.Convolution(Draw().normal(2, 1, 3, 3))

ENERGIES = {  # of an image y in (0, 1), (2, 1, 7, 8)
    "mask, box": lambda y: (
        bl.LeastSquares(y) @ bl.Mask(0.5 + y[:1]) + 0.1 * TV() + bl.Box(0.3, 0.6)
    ),
    "blur, straight edges": lambda y: bl.LeastSquares(y) @ BLUR + 0.05 * TV(isotropic=False),
    "counts, blur": lambda y: bl.KullbackLeibler(5 * y, background=0.1) @ BLUR + 0.5 * TV(),
    "inside a ball": lambda y: TV() + bl.L2Ball(0.8, center=y) @ BLUR + 0.1 * bl.LeastSquares(),
    "outliers": lambda y: bl.Absolute(y) + 0.6 * TV() + 0.1 * bl.LeastSquares(),
    "filters": lambda y: bl.LeastSquares(y) + 0.05 * bl.L1() @ FILTERS,
    "colour": lambda y: bl.LeastSquares(torch.cat([y, 1 - y], 1)) @ BLUR + 0.1 * TV(coupled=True),
    "generalised": lambda y: (
        bl.LeastSquares(y[:, 0]) @ U
        + 0.1 * bl.L21(dim=1) @ (bl.Gradient() @ U - FIELD)
        + 0.2 * bl.L21(dim=1) @ bl.SymmetrizedGradient() @ FIELD
        + 0.1 * bl.LeastSquares()
    ),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_the_system_along_the_manifold_is_that_of_the_optimality_conditions(name, monkeypatch):
    """At any (x, y), solved or not: M* w = (g, 0), and M v for a v that is sought."""
    draw = Draw(2, (1, 7, 8), seed=3)
    y = 0.5 + 0.2 * draw.x()
    x0 = {"generalised": 0.1 * draw.normal(2, 3, 7, 8), "colour": torch.cat([y, y], 1)}.get(name, y)
    problem = bl.Problem(()) + ENERGIES[name](y)
    found = bl.solve(problem, x0=x0, max_iter=60, tol=1e-12, on_fail="ignore")
    point = (found.x, *found.dual)
    M = Linearisation(point, lambda z: problem.kkt(z[0], z[1:]))
    system = Factored.of(Active(problem, point))
    loss = torch.cat(
        [draw.normal(*found.x.shape).flatten(1), *(0 * p.flatten(1) for p in found.dual)], 1
    )
    w = M.flatten(system.solve(M.split(loss), transposed=True))
    torch.testing.assert_close(M.transposed_product(w), loss, rtol=0, atol=1e-9)
    monkeypatch.setattr("bilevel.differentiation.sparse_tangent._LARGEST", 1)  # sample by sample
    alone = M.flatten(system.solve(M.split(loss), transposed=True))
    torch.testing.assert_close(
        alone[:, : found.x[0].numel()], w[:, : found.x[0].numel()], rtol=1e-6, atol=1e-7
    )
    b = M.product(draw.normal(*loss.shape))
    v = M.flatten(system.solve(M.split(b), transposed=False))
    torch.testing.assert_close(M.product(v), b, rtol=0, atol=1e-7)


def test_first_and_second_derivatives_by_default():
    """By data, weight and operator of 576 pixels, against differences of solutions."""
    draw = Draw(1, (24, 24), seed=1)
    parameters = [0.5 + 0.3 * draw.x(), torch.tensor(0.1), 0.5 + draw.positive(24, 24)]
    directions = [draw.normal(*p.shape) for p in parameters]
    g, h, report = draw.x(), 1e-5, bl.Certificate()

    def slope(t):
        at = [(p + t * d).requires_grad_() for p, d in zip(parameters, directions, strict=True)]
        y, weight, mask = at
        energy = bl.LeastSquares(y) @ bl.Mask(mask) + weight * TV()
        x = bl.argmin(energy, tol=1e-11, report=report)
        loss = (g * x).sum()
        grads = torch.autograd.grad(loss, at, create_graph=True)
        return loss, sum((a * d).sum() for a, d in zip(grads, directions, strict=True)), at

    _, first, at = slope(0.0)
    second = sum(
        (a * d).sum() for a, d in zip(torch.autograd.grad(first, at), directions, strict=True)
    )
    assert report.strategy == "PartlySmooth" and float(report.adjoint_residual) <= 1e-11
    (above, up, _), (below, down, _) = slope(h), slope(-h)
    torch.testing.assert_close(first, (above - below) / (2 * h), rtol=1e-6, atol=0)
    torch.testing.assert_close(second, (up - down) / (2 * h), rtol=1e-4, atol=0)


def test_a_loss_that_reads_what_no_term_determines_is_refused():
    """A column that is not seen, between 0 and 1: any value there has the same total variation."""
    y, seen = torch.zeros(1, 24, 24), torch.ones(24, 24)
    y[..., 12:] = 1
    seen[:, 12] = 0
    y.requires_grad_()
    energy = bl.LeastSquares(y) @ bl.Mask(seen) + 0.1 * TV(isotropic=False)
    x = bl.argmin(energy, x0=torch.full((1, 24, 24), 0.5))
    assert 0.1 < float(x[0, 5, 12].detach()) < 0.9
    with pytest.raises(bl.NotUnique, match="adjoint system has no solution"):
        torch.autograd.grad(x[0, :, 12].sum(), y, retain_graph=True)
    (gradient,) = torch.autograd.grad(x[0, :, :12].sum(), y)
    torch.testing.assert_close(gradient[..., :12], torch.ones(1, 24, 12))  # means keep sums


def test_local_maps_are_written_out_and_others_are_not():
    x = Draw(2, (3, 6, 7)).x()
    mask = Draw(2, (3, 6, 7)).positive(2, 1, 6, 7)

    def image(v):
        return bl.Gradient()(mask * v) + v.sum(1, keepdim=True)[:, :, None]

    v = Draw(2, (3, 6, 7), seed=1).x()
    for matrix, row, expected in zip(sparse_matrices(image, x), v, image(v), strict=True):
        np.testing.assert_allclose(
            matrix @ row.numpy().ravel(), expected.numpy().ravel(), atol=1e-12
        )
    assert sparse_matrices(lambda v: v.flatten(1).cumsum(1), torch.zeros(1, 30, 30)) is None
    assert sparse_matrices(bl.Blur(torch.ones(25, 25)), torch.zeros(1, 40, 40)) is None


def test_a_saddle_point_system_with_rows_that_depend_on_each_other():
    rng = np.random.default_rng(0)
    from scipy.sparse import csr_array, diags_array

    K = rng.standard_normal((4, 9))
    K[3] = K[0] + K[1]
    G, J, Q = (
        diags_array(rng.uniform(1, 10, 9)),
        np.diag([0, 0, 0.5, 0]),
        rng.standard_normal((1, 9)),
    )
    L = (np.eye(4) - J) @ K
    saddle = Saddle(G.tocsc(), Rows(csr_array(L), csr_array(J), csr_array(K), Q))
    r, e = rng.standard_normal(9), np.append(L @ rng.standard_normal(9), 0.3)
    z, s = saddle(r, e)
    np.testing.assert_allclose(G @ z + K.T @ s[:4] + Q.T @ s[4:], r, atol=1e-5)
    np.testing.assert_allclose(np.append(L @ z - J @ s[:4], Q @ z), e, atol=1e-9)


@pytest.mark.parametrize("size, strategy", [(22, "FixedPoint"), (23, "PartlySmooth")])
def test_the_default_for_composed_terms_goes_by_their_size(size, strategy):
    y = torch.zeros(1, size, size)
    chosen = [
        type(default_strategy(problem, default_solver(problem, y), y)).__name__
        for problem in (
            bl.LeastSquares(y) @ BLUR + TV(),
            bl.KullbackLeibler(y) @ BLUR + TV() + bl.NonNegative(),
        )
    ]
    assert chosen == [strategy] * 2
    behind = bl.LeastSquares(y) @ BLUR + TV()
    loose = default_strategy(behind, bl.PrimalDual(), y, adjoint_tol=1e-3)
    denoising = default_strategy(bl.LeastSquares(y) + TV(), bl.PrimalDual(), y)
    assert type(loose) is type(denoising) is bl.FixedPoint
    fields = bl.LeastSquares(y) + bl.Nuclear() @ bl.Identity()  # no manifold at that size
    assert type(default_strategy(fields, bl.PrimalDual(), y)) is bl.FixedPoint


def test_terms_that_are_not_local_are_differentiated_at_the_fixed_point():
    draw = Draw(1, (600,))
    y, K = draw.x().requires_grad_(), draw.normal(20, 600) / 30
    gradients = [
        torch.autograd.grad(
            bl.argmin(bl.LeastSquares(y) + 0.5 * bl.L1() @ bl.Matrix(K), diff=diff, tol=1e-10)
            .square()
            .sum(),
            y,
        )[0]
        for diff in (None, bl.FixedPoint())
    ]
    torch.testing.assert_close(*gradients, rtol=1e-7, atol=1e-8)
