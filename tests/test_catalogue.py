"""Problems with the terms of the catalogue: solutions known otherwise, and their derivatives."""

import pytest
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(shape, generator=GENERATOR, dtype=torch.float64)


A, Y, WEIGHT = normal(8, 5), normal(2, 8), torch.tensor(0.3, dtype=torch.float64)
COUNTS = (3 * normal(2, 8).exp()).round()
P = normal(8, 5).abs()
SIGNS = normal(2, 8).sign()
CLASSES = torch.nn.functional.one_hot(normal(6, 3).argmax(1), 3).double()[None]  # (1, 6, 3)
IMAGE = normal(1, 1, 4, 5)
TURN = torch.linalg.qr(normal(5, 5))[0]


def smoother(x):
    return 0.6 * x + 0.3 * x.roll(1, -1) + 0.1 * x.flip(-1)


# name -> (energy of (weight, data), data, options): unique solutions, each with a gradient
ENERGIES = {
    "absolute": (lambda w, y: bl.Absolute(y) @ bl.Matrix(A) + w * bl.LeastSquares(), Y, {}),
    "quantile": (lambda w, y: bl.Quantile(0.3, y) @ bl.Matrix(A) + w * bl.LeastSquares(), Y, {}),
    "svm": (
        lambda w, a: bl.Hinge(SIGNS) @ bl.Matrix(a) + w * bl.LeastSquares(),
        A,
        {"x0": 0 * A[:2]},
    ),
    "squared hinge": (
        lambda w, a: bl.SquaredHinge(SIGNS) @ bl.Matrix(a) + w * bl.L1(),
        A,
        {"x0": 0 * A[:2]},
    ),
    "poisson": (
        lambda w, a: bl.KullbackLeibler(COUNTS, 0.5) @ bl.Matrix(a) + w * bl.LeastSquares(),
        P,
        {"x0": 1 + 0 * A[:2]},
    ),
    "poisson, tv": (
        lambda w, y: bl.KullbackLeibler(y) + w * bl.TotalVariation(),
        IMAGE.exp(),
        {"x0": 1 + 0 * IMAGE},
    ),
    "entropy on the simplex": (
        lambda w, y: bl.LeastSquares(y) + w * bl.Entropy() + bl.Simplex(),
        normal(2, 5),
        {},
    ),
    "barrier": (lambda w, y: bl.LeastSquares(y) @ bl.Matrix(A) + w * bl.LogBarrier(), Y, {}),
    "softmax regression": (
        lambda w, t: bl.CrossEntropy(t) + w * bl.LeastSquares(),
        CLASSES,
        {},
    ),
    "quadratic, box": (
        lambda w, q: bl.Quadratic(A.mT @ A, q) + w * bl.L1() + bl.Box(-0.2, 0.2),
        normal(2, 5),
        {},
    ),
    "firm threshold": (lambda w, y: bl.LeastSquares(y) + w * bl.MCP(0.5), normal(2, 5), {}),
    "scad": (lambda w, y: bl.LeastSquares(y) + w * bl.SCAD(0.5), normal(2, 5), {}),
    "log-sum": (lambda w, y: bl.LeastSquares(y) + w * bl.LogSum(0.9), normal(2, 5), {}),
    "geman": (lambda w, y: bl.LeastSquares(y) + w * bl.Geman(0.9), normal(2, 5), {}),
    "etp": (lambda w, y: bl.LeastSquares(y) + w * bl.ETP(0.9), normal(2, 5), {}),
    "mcp of differences": (
        lambda w, y: bl.LeastSquares(y) + w * bl.MCP(0.5, 2.0) @ bl.Gradient(dims=1),
        normal(2, 5),
        {},
    ),
    "exclusive lasso": (
        lambda w, y: bl.LeastSquares(y) @ bl.Matrix(A) + w * bl.SquaredL1(),
        Y,
        {},
    ),
    "squared maximum": (
        lambda w, y: bl.LeastSquares(y) @ bl.Matrix(A) + w * bl.SquaredLinf(),
        Y,
        {},
    ),
    "overlapping groups": (
        lambda w, y: (
            bl.LeastSquares(y)
            + w * bl.L21() @ bl.Groups(torch.tensor([[0, 1, 2], [2, 3, 4], [1, 3, -1]]), 5)
        ),
        normal(2, 5),
        {},
    ),
    "envelope": (
        lambda w, y: bl.LeastSquares(y) @ bl.Matrix(A) + w * bl.MoreauEnvelope(bl.L2(), 0.2),
        Y,
        {},
    ),
    "rotated": (
        lambda w, y: (
            bl.LeastSquares(y) @ bl.Matrix(A) + bl.Orthogonal(w * bl.L1(), bl.Matrix(TURN))
        ),
        Y,
        {},
    ),
    "denoiser": (
        lambda w, y: w * bl.LeastSquares(y) @ bl.Matrix(A) + bl.PlugAndPlay(smoother),
        Y,
        {"solver": bl.ForwardBackward(step_size=0.1)},
    ),
    "blocks": (
        lambda w, y: (
            bl.LeastSquares(y) @ bl.Matrix(A)
            + bl.Separable(w * bl.L1(), w * bl.LeastSquares(), sizes=(2, 3))
        ),
        Y,
        {},
    ),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_gradients_are_differences_of_solutions(name):
    energy, data, options = ENERGIES[name]

    def solution(weight, data):
        return bl.argmin(energy(weight, data), tol=1e-12, max_iter=200_000, **options)

    testing.gradients_agree(solution, [WEIGHT, data], rtol=1e-4)


@pytest.mark.parametrize("name", ENERGIES)
def test_second_derivatives_are_differences_of_gradients(name):
    """Differences over 1e-4 of gradients good to about 1e-9: 1e-4 relative."""
    energy, data, options = ENERGIES[name]
    generator = torch.Generator().manual_seed(5)

    def slope(weight, data, **graph):
        """d<g, x> / d(weight, data) along a random direction."""
        x = bl.argmin(energy(weight, data), tol=1e-12, max_iter=200_000, **options)
        g = torch.randn(x.shape, generator=generator.manual_seed(1))
        gradients = torch.autograd.grad((g * x.square()).sum(), (weight, data), **graph)
        generator.manual_seed(2)
        return sum((v * torch.randn(v.shape, generator=generator)).sum() for v in gradients)

    leaves = [WEIGHT.clone().requires_grad_(), data.clone().requires_grad_()]
    second = torch.autograd.grad(slope(*leaves, create_graph=True), leaves)
    d = [torch.randn(p.shape, generator=generator.manual_seed(3)) for p in leaves]
    d = [v / v.norm() for v in d]
    got = sum((a * b).sum() for a, b in zip(second, d, strict=True))
    h = 1e-4

    def moved(t):
        near = [(p.detach() + t * v).requires_grad_() for p, v in zip(leaves, d, strict=True)]
        return slope(*near).detach()

    expected = (8 * (moved(h / 2) - moved(-h / 2)) - (moved(h) - moved(-h))) / (6 * h)
    scale = max(abs(float(got)), *(float(v.norm()) for v in second), 1e-3)
    assert abs(float(got - expected)) <= 1e-4 * scale
