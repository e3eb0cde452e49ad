"""Layers: each against its closed form or its conditions, and differentiated."""

import pytest
import torch
from torch.autograd import gradcheck

import bilevel as bl
from bilevel import layers

DOUBLE = torch.float64


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE).requires_grad_()


A = torch.tensor([[1.0, 2.0, 0.0, 1.0]], dtype=DOUBLE)
SETS = {
    "simplex": bl.Simplex(),
    "l1 ball": bl.L1Ball(1.0),
    "l2 ball": bl.L2Ball(1.0),
    "box": bl.Box(-0.5, 0.5),
    "affine": bl.Affine(A, torch.ones(1, dtype=DOUBLE)),
    "monotone": bl.Monotone(),
}


@pytest.mark.parametrize("name", SETS)
def test_projections(name):
    layer, x = layers.Projection(SETS[name]), draw(3, 4)
    torch.testing.assert_close(layer(x), SETS[name].prox(x, 1.0))
    assert gradcheck(layer, x)


def test_sparse_code():
    torch.manual_seed(0)
    layer, x = layers.SparseCode(5, 8, weight=0.3).double(), draw(2, 5)
    code = layer(x)
    slope = (code @ layer.dictionary.T - x) @ layer.dictionary
    assert slope.abs().amax() <= 0.3 * (1 + 1e-5) and 0 < (code != 0).sum() < 16
    code.square().sum().backward()
    assert layer.dictionary.grad.abs().sum() > 0 and layer.log_weight.grad != 0


def test_least_squares():
    layer, design, b = layers.LeastSquaresFit(0.1).double(), draw(2, 6, 3), draw(2, 6, seed=1)
    eye = 0.1 * torch.eye(3, dtype=DOUBLE)
    exact = torch.linalg.solve(design.mT @ design + eye, (design.mT @ b[..., None])[..., 0])
    torch.testing.assert_close(layer(design, b), exact, rtol=1e-6, atol=1e-8)
    assert gradcheck(layer, (design, b))


def test_quadratic_program():
    layer, Q, q = layers.QuadraticProgram(), torch.eye(4, dtype=DOUBLE), draw(2, 4)
    one = torch.ones(1, dtype=DOUBLE)
    torch.testing.assert_close(layer(Q, q), -q)
    simplex = layer(Q, q, one.expand(1, 4), one, -Q, torch.zeros(4, dtype=DOUBLE))
    torch.testing.assert_close(simplex, bl.Simplex().prox(-q, 1.0))
    assert gradcheck(
        lambda q, b: layer(Q, q, A, b, -Q, torch.ones(4, dtype=DOUBLE)),
        (q, one.clone().requires_grad_()),
    )  # noqa: E501
    with pytest.raises(ValueError, match="needs G and h, or neither"):
        layer(Q, q, G=-Q)


def mean_jump(x):  # (B, 1, H, W) -> (B,)
    return x.diff(dim=-1).abs().mean((1, 2, 3)).log()


def test_predicted_weight():
    """Each sample with the weight of its own prediction, whose gradient is that of one weight."""
    noisy, line = draw(2, 1, 4, 5).detach(), draw(2)
    layer = layers.PredictedTVDenoise(lambda x: line[0] + line[1] * mean_jump(x), tol=1e-10)
    x = layer(noisy)
    for k in range(2):
        weight = layer.weight_for(noisy)[k].item()
        alone = layers.TVDenoise(weight, tol=1e-10).double()(noisy[k : k + 1])
        torch.testing.assert_close(x[k : k + 1], alone, rtol=1e-5, atol=1e-6)

    def loss(a, b):
        predictor = lambda x: a + b * mean_jump(x)  # noqa: E731
        return layers.PredictedTVDenoise(predictor, tol=1e-10)(noisy).square().sum()

    assert gradcheck(loss, tuple(line), rtol=1e-4, atol=1e-6)
    rounded = layers.PredictedTVDenoise(lambda x: line.bfloat16())  # as a network in autocast
    assert torch.equal(rounded.weight_for(noisy).flatten(), line.bfloat16().double().exp())
    with pytest.raises(ValueError, match=r"one weight a sample, .* shape \(2,\), got \(1,\)"):
        layers.PredictedTVDenoise(lambda x: line[:1])(noisy)
