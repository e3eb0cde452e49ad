"""The derivative of the exact prox of 1-D total variation."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.kernels.reference import tv1d as reference
from test_tv1d import denoised, draw, signal

pytestmark = pytest.mark.usefixtures("float64")


WEIGHTS = [(), (3, 1, 1), (29,), (1, 2, 29), (3, 2, 29)]


# torch itself compiles some forward derivatives in a way that it calls deprecated
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("shape", WEIGHTS, ids=str)
def test_derivatives_of_every_order_both_ways(shape):
    g = torch.Generator().manual_seed(1)
    x = torch.randn(3, 2, 30, generator=g).requires_grad_()
    w = (0.2 + torch.rand(shape, generator=g)).requires_grad_()
    assert torch.autograd.gradcheck(denoised, (x, w), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(
        denoised, (x, w), check_fwd_over_rev=True, check_rev_over_rev=True
    )


def test_the_third_derivative():
    """Of sum u^4 / 24 in w, where u(w) is linear: sum u (du/dw)^3."""
    x, w = torch.randn(2, 30), torch.tensor(0.4, requires_grad=True)
    u = denoised(x, w)
    slope = torch.autograd.functional.jacobian(lambda w: denoised(x, w), w)
    derivative = u.pow(4).sum() / 24
    for _ in range(3):
        (derivative,) = torch.autograd.grad(derivative, w, create_graph=True)
    torch.testing.assert_close(derivative, (u * slope**3).sum())


@pytest.mark.parametrize("seed", [s for s in range(40) if s % 3 and s % 4 != 3])
def test_the_derivative_is_that_of_the_reference(seed):
    """Where the solution has one: without ties, and edges of weight 0."""
    x, w = draw(seed)
    x, w = x.requires_grad_(), w.requires_grad_()
    g = torch.randn(len(x), generator=torch.Generator().manual_seed(seed))
    ours = torch.autograd.grad(denoised(x[None], w), (x, w), g[None])
    theirs = torch.autograd.grad(reference(x, w), (x, w), g, allow_unused=True)
    for a, b in zip(ours, theirs, strict=True):
        b = torch.zeros_like(a) if b is None else b.nan_to_num(0.0)  # inf - inf: never a bound
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_the_derivative_averages_over_segments():
    y = torch.tensor([[0.0, 0.2, 1.0, 1.3, 1.1, -1.0]]).requires_grad_()
    w = torch.tensor(0.3, requires_grad=True)
    J = torch.autograd.functional.jacobian(lambda y: denoised(y, w)[0], y)[:, 0]
    blocks = torch.block_diag(
        torch.full((2, 2), 1 / 2), torch.full((3, 3), 1 / 3), torch.ones(1, 1)
    )
    torch.testing.assert_close(J, blocks)
    dw = torch.autograd.functional.jacobian(lambda w: denoised(y, w)[0], w)
    torch.testing.assert_close(dw, torch.tensor([1 / 2, 1 / 2, -2 / 3, -2 / 3, -2 / 3, 1.0]))
    term = 0.3 * bl.TotalVariation(dims=1)
    assert term.degrees_of_freedom(y).tolist() == [3] == [round(float(J.trace()))]
    channels = torch.randn(4, 3, 20)
    freedom = term.degrees_of_freedom(channels, torch.tensor([0.1, 1.0, 5.0, 1e6]))
    assert freedom[-1] == 3 and (freedom.diff() <= 0).all() and freedom[0] > 20


def test_at_weight_0_the_derivative_is_that_of_a_growing_weight():
    y, w = torch.tensor([[0.0, 1.0, 3.0, 2.0]]), torch.zeros((), requires_grad=True)
    x = y.clone().requires_grad_()
    J = torch.autograd.functional.jacobian(lambda w: denoised(y, w)[0], w)
    torch.testing.assert_close(J, (denoised(y, 1e-3)[0] - y[0]) / 1e-3)
    denoised(x, 0.0)[0, 1].backward()
    assert x.grad.tolist() == [[0.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("n", [5, 200])
def test_argmin(n):
    """The prox of the data, and its derivative, for all kinds of weights."""
    y = signal("pieces", n).repeat(2, 1)
    y = y + 0.1 * torch.randn(2, n)
    for w in (torch.tensor(0.4), torch.tensor([[0.3], [0.7]]), torch.rand(n - 1) + 0.1):
        x = bl.argmin(bl.LeastSquares(y) + w * bl.TotalVariation(dims=1), tol=1e-13)
        torch.testing.assert_close(x, denoised(y, w), rtol=0, atol=1e-12)
        testing.gradients_agree(
            lambda y, w: bl.argmin(bl.LeastSquares(y) + w * bl.TotalVariation(dims=1), tol=1e-13),
            [y, w],
            h=1e-5,
        )


def test_gradients_have_the_dtype_of_their_inputs():
    x = torch.randn(2, 9, dtype=torch.float32, requires_grad=True)
    w = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    denoised(x, w).square().sum().backward()
    assert (x.grad.dtype, w.grad.dtype) == (torch.float32, torch.float64)
    expected = torch.autograd.functional.jacobian(
        lambda w: denoised(x.detach().double(), w).square().sum(), w.detach()
    )
    torch.testing.assert_close(w.grad, expected, rtol=1e-5, atol=0)
