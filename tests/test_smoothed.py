"""Smoothed: the derivative of another problem, which comes near as eps falls."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from problems import BY_NAME
from test_strategies import gradient_error


def test_of_l1_it_is_hubers_problem():
    y = torch.tensor([[3.0, -0.4, 0.05, -2.0]], dtype=torch.float64)
    weight = torch.tensor(0.5, dtype=torch.float64)

    def smoothed(y, weight):
        energy = bl.LeastSquares(y) + weight * bl.L1()
        return bl.argmin(energy, diff=bl.Smoothed(0.1), tol=1e-12)

    huber = bl.argmin(bl.LeastSquares(y) + bl.MoreauEnvelope(weight * bl.L1(), 0.1), tol=1e-12)
    torch.testing.assert_close(smoothed(y.requires_grad_(), weight), huber, rtol=1e-9, atol=0)
    testing.gradients_agree(smoothed, [y.detach(), weight])


@pytest.mark.parametrize("name", ["lasso", "box_least_squares", "tv1d_composed"])
def test_the_bias_falls_with_eps(name):
    """Linearly, once the active set is that of the solution: ten times less at least, here."""
    errors = [gradient_error(BY_NAME[name], diff=bl.Smoothed(e), tol=1e-9) for e in (1e-2, 1e-4)]
    assert errors[1] < 0.1 * errors[0]
    assert errors[1] < 1e-2


def test_a_smoothing_must_be_positive():
    with pytest.raises(ValueError, match="Smoothed needs eps > 0"):
        bl.Smoothed(0.0)
