"""Solution.unique, and what the strategies do where a solution is not unique."""

import pytest
import torch

import bilevel as bl
from registry import Draw

pytestmark = pytest.mark.usefixtures("float64")

YES, NO, UNKNOWN = bl.Unique.YES, bl.Unique.NO, bl.Unique.UNKNOWN


def unique(energy, **options):
    return bl.solve(energy, tol=1e-12, **options).unique


def data(A, b):
    return bl.LeastSquares(b) @ bl.Matrix(A)


def twins():
    """(A with its first column twice, b)."""
    A = Draw(1, (5,)).normal(8, 5)
    return torch.cat([A, A[:, :1]], 1), Draw(2, (8,), seed=1).x()


def test_unique_solutions():
    A, b = twins()
    assert unique(data(A[:, :5], b) + 0.5 * bl.L1()) == (YES, YES)
    assert unique(data(A, b) + 0.5 * bl.L1() + 0.1 * bl.LeastSquares()) == (YES, YES)
    assert unique(data(A, b) + 500 * bl.L1()) == (YES, YES)  # it is 0
    assert unique(bl.LeastSquares(Draw(2, (1, 4, 4)).x()) + bl.TotalVariation()) == (YES, YES)


def test_two_equal_columns_share_their_coefficient_in_any_way():
    A, b = twins()
    energy = data(A, b) + 0.5 * bl.L1()
    assert unique(energy) == (NO, NO)
    x = bl.solve(energy, tol=1e-12).x
    # at the end of the face, where the twin of x_1 is 0
    end = torch.cat([x[:, :1] + x[:, 5:], x[:, 1:5], torch.zeros(2, 1)], 1)
    at_end = bl.solve(energy, tol=1e-12, x0=end)
    assert at_end.x[:, 5].abs().max() <= 1e-12 and at_end.unique == (NO, NO)
    assert unique(data(A[:3], b[:, :3])) == (NO, NO)  # fewer equations than unknowns


def test_the_face_of_a_linear_program():
    def program(*costs):
        zero = torch.zeros(4, 4)
        return bl.Quadratic(zero, torch.tensor([costs])) + bl.Simplex()

    for x0 in (torch.full((1, 4), 0.25), torch.tensor([[1.0, 0, 0, 0]])):
        start = dict(x0=x0, solver=bl.ForwardBackward(step_size=0.5))
        assert unique(program(1.0, 1.0, 2.0, 3.0), **start) == (NO,)
        assert unique(program(1.0, 1.1, 2.0, 3.0), **start) == (YES,)


def test_medians():
    """Of an even number of points everything between the middle ones."""

    def median(*points):
        distances = bl.Absolute(torch.tensor([points])) @ bl.Matrix(torch.ones(len(points), 1))
        return unique(distances, x0=torch.tensor([[7.0]]))

    assert median(0.0, 1.0, 2.0, 3.0) == (NO,)
    assert median(0.0, 1.0, 2.0) == (YES,)


def test_what_cannot_be_told_is_unknown():
    """Strict complementarity fails: no direction is flat, but the manifold may change."""
    y = torch.tensor([[0.5, 2.0]])
    mask = bl.Mask(torch.tensor([1.0, 1.0]))
    assert unique(bl.LeastSquares(y) @ mask + 0.5 * bl.L1()) == (UNKNOWN,)
    assert unique(bl.LeastSquares(y) + 0.5 * bl.L1()) == (YES,)  # strongly convex: no matter


@pytest.mark.parametrize("diff", [bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth()], ids=repr)
def test_implicit_strategies_refuse_what_is_not_determined(diff):
    A, b = twins()
    x = bl.argmin(data(A, b.requires_grad_()) + 0.5 * bl.L1(), tol=1e-12, diff=diff)
    (gradient,) = torch.autograd.grad((x[:, 0] + x[:, 5]).sum(), b, retain_graph=True)
    single = bl.argmin(data(A[:, :5], b) + 0.5 * bl.L1(), tol=1e-12)
    (expected,) = torch.autograd.grad(single[:, 0].sum(), b)
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)  # the sum is determined
    with pytest.raises(bl.NotUnique, match="the loss reads a part of the solution that the"):
        x[:, 0].sum().backward()


def test_unrolling_differentiates_the_solution_that_its_start_leads_to():
    """From 0 both twins get the same, half of what one column alone would."""
    A, b = twins()
    x = bl.argmin(data(A, b.requires_grad_()) + 0.5 * bl.L1(), tol=1e-12, diff=bl.Unroll())
    (gradient,) = torch.autograd.grad(x[:, 0].sum(), b)
    single = bl.argmin(data(A[:, :5], b) + 0.5 * bl.L1(), tol=1e-12)
    (expected,) = torch.autograd.grad(single[:, 0].sum(), b)
    torch.testing.assert_close(gradient, expected / 2, rtol=1e-4, atol=1e-6)
