"""Variational networks: a flow whose energy changes from step to step."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.layers import GradientFlow, VariationalNetwork
from bilevel.layers.variational import Activated

pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = VariationalNetwork(3, 2, size=3, knots=5)
    for parameter in net.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return net


def test_the_activation_is_the_gradient_of_its_potential():
    term = Activated(torch.randn(2, 5), torch.linspace(-0.5, 0.5, 5))
    x = torch.randn(3, 2, 4, 4).requires_grad_()
    (slope,) = torch.autograd.grad(term.value(x).sum(), x)
    assert torch.allclose(slope, term.grad(x), atol=1e-12)
    assert torch.allclose(term.value(torch.zeros(3, 2, 4, 4)), torch.zeros(3), atol=1e-12)


def test_each_step_has_its_own_energy(net):
    noisy = torch.rand(2, 1, 6, 6)
    x, h = noisy, net.flow.stop / 3
    for k in range(3):
        energy = net.energy(noisy, k)
        data, prior = energy.terms
        x = data.prox(x - h * prior.grad(x), h)
    assert torch.allclose(net(noisy), x, atol=1e-12)


def test_with_one_energy_it_is_the_flow():
    net = VariationalNetwork(4, 2, size=3, shared=True)
    noisy = torch.rand(2, 1, 6, 6)
    flow = GradientFlow(float(net.flow.stop.detach()), 4, implicit=True)
    assert torch.allclose(net(noisy), flow(net.energy(noisy, 0), noisy), atol=1e-7)


def test_every_parameter_is_differentiated_the_stopping_time_too(net):
    noisy = torch.rand(1, 1, 5, 5)
    names = [name for name, _ in net.named_parameters()]

    def solution(*values):
        return torch.func.functional_call(net, dict(zip(names, values, strict=True)), (noisy,))

    testing.gradients_agree(solution, [p.detach() for p in net.parameters()])


def test_a_flow_follows_an_energy_that_changes_with_time():
    y, x0 = torch.rand(2, 5), torch.zeros(2, 5)
    flow = GradientFlow(1.0, 2)
    x = flow(lambda path: (len(path) * 1.0) * bl.LeastSquares(y), x0)
    assert torch.allclose(x, 0.5 * y + 1.0 * (y - 0.5 * y))


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="odd size from 3 on.*size=4"):
        VariationalNetwork(size=4)
    with pytest.raises(ValueError, match=r"needs images \(B, 1, H, W\), got \(3, 8, 8\)"):
        VariationalNetwork()(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match="so the first is needed"):
        GradientFlow()(lambda path: bl.LeastSquares(torch.zeros(1, 2)))
