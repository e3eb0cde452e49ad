"""PartlySmooth: the derivative along the active manifold, on every non-smooth term."""

import pytest
import torch

import bilevel as bl
from problems import Flatten
from registry import TERMS, Draw

pytestmark = pytest.mark.usefixtures("float64")


def non_smooth(case):
    draw = Draw(4, case.event)
    term = case.make(draw)
    kinked = isinstance(term, bl.Proximable | bl.Composed) and not isinstance(term, bl.Smooth)
    convex = torch.as_tensor(term.strong_convexity(draw.x()) >= 0).all()
    return kinked and case.convex and case.valued and bool(convex)


CASES = [case for case in TERMS if non_smooth(case)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_term_against_differences_of_solutions(case):
    """min 1/2 |A x - b|^2 + J(x): d/db in a random direction, A of condition 2."""
    draw = Draw(4, case.event)
    term, b, n = case.make(draw), 2 * draw.x().flatten(1), torch.Size(case.event).numel()
    A = torch.linalg.qr(draw.normal(n, n)).Q * torch.linspace(1, 2, n)

    def solution(b, diff=None):
        data = bl.LeastSquares(b) @ bl.Matrix(A) @ Flatten(*case.event)
        return bl.argmin(data + term, tol=1e-12, max_iter=100_000, diff=diff)

    g, d, h = draw.x(), draw.normal(*b.shape), 1e-5
    at = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((g * solution(at, bl.PartlySmooth())).sum(), at)
    with torch.no_grad():
        moved = (solution(b + h * d) - solution(b - h * d)) / (2 * h)
    expected = (g * moved).flatten(1).sum(1)
    torch.testing.assert_close((gradient * d).sum(1), expected, rtol=1e-5, atol=1e-5)
