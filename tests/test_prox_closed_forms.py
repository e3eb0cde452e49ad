"""The prox of the catalogue against brute force and special functions, and its derivative in the
term's own parameters."""

import pytest
import scipy.optimize
import scipy.special
import torch

import bilevel as bl
from bilevel.terms.logarithms import wright_omega

pytestmark = pytest.mark.usefixtures("float64")

NONCONVEX = {
    "L0": bl.L0(),
    "TruncatedQuadratic": bl.TruncatedQuadratic(0.4),
    "MCP": bl.MCP(0.5, 2.0),
    "SCAD": bl.SCAD(0.5, 2.7),
    "LogSum": bl.LogSum(0.6),
    "Geman": bl.Geman(0.6),
    "ETP": bl.ETP(0.6),
}


@pytest.mark.parametrize("name", NONCONVEX)
@pytest.mark.parametrize("step", [0.05, 0.3, 1.0, 1.7, 4.0, 30.0])  # below and above 1 / rho
def test_the_prox_is_the_global_minimum(name, step):
    term = NONCONVEX[name]
    x = torch.linspace(-9, 9, 61)[:, None] + 1e-3  # off the jumps
    grid = torch.cat([torch.zeros(1), torch.linspace(-10, 10, 40_001)])
    density = step * term.density(grid[:, None])[:, 0]
    least = torch.stack([(density + (grid - v).square() / 2).min() for v in x[:, 0]])
    p = term.prox(x, step)
    reached = step * term.value(p) + (p - x).square()[:, 0] / 2
    assert (reached <= least + 1e-12).all()  # the grid's own error is one-sided
    assert (reached >= least - 1e-4 * (1 + step)).all()


@pytest.mark.parametrize("name", ["LogSum", "Geman", "ETP"])
def test_the_prox_near_a_double_root(name):
    """step weight |phi''(0)| / scale^2 a little below 1, |x| around the threshold."""
    term = NONCONVEX[name]
    for closeness in (1e-2, 1e-4, 1e-8, 0.0):
        step = (1 - closeness) * 0.36 / term.bend
        x = step / 0.6 + torch.tensor([-1e-3, -1e-9, 1e-9, 1e-6, 1e-3, 0.1])[:, None]
        u = term.prox(x, step)[:, 0] / 0.6
        assert (u[:2] == 0).all() and (u[2:] >= 0).all()
        # the equation, to the accuracy that x itself has
        point = (0.6 * u[2:]).requires_grad_()
        (slope,) = torch.autograd.grad(term.density(point[:, None]).sum(), point)
        torch.testing.assert_close(point + step * slope, x[2:, 0], rtol=0, atol=4e-16)


def test_the_entropy_prox_is_lamberts():
    x = torch.tensor([-3.0, -0.2, 0.0, 0.7, 4.0, 30.0])[None]
    for s in (0.05, 1.0, 20.0):
        expected = s * scipy.special.lambertw(((x / s - 1).exp() / s).numpy()).real
        expected = torch.as_tensor(expected)
        finite = expected.isfinite()
        torch.testing.assert_close(
            bl.Entropy().prox(x, s)[finite], expected[finite], rtol=1e-13, atol=0
        )
    z = torch.linspace(-700, 700, 1401)
    expected = torch.as_tensor(scipy.special.wrightomega(z.numpy()))
    torch.testing.assert_close(wright_omega(z), expected, rtol=4e-13, atol=0)


def test_wright_omega_has_every_derivative():
    z = torch.tensor([-5.0, -1.0, 0.0, 0.9, 1.1, 30.0], requires_grad=True)
    assert torch.autograd.gradcheck(wright_omega, z)
    assert torch.autograd.gradgradcheck(wright_omega, z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "term", [bl.Entropy(), bl.LogBarrier(), bl.KullbackLeibler(3.0), bl.KullbackLeibler(0.0)]
)
def test_a_prox_with_a_logarithm_at_its_ends(term, dtype):
    """Far outside the domain, far inside, at its edge, at tiny and huge weights."""
    x = torch.tensor([-1e15, -1e3, -1.0, 0.0, 1e-30, 1.0, 1e3, 1e15], dtype=dtype)[None]
    for weight in (0.0, 1e-12, 1.0, 1e6):
        point = x.clone().requires_grad_()
        p = (weight * term).prox(point, 0.7)
        assert p.isfinite().all() and (p >= 0).all() and (p.diff() >= 0).all()
        (slope,) = torch.autograd.grad(p.sum(), point)
        assert slope.isfinite().all() and (slope >= 0).all() and (slope <= 1 + 1e-5).all()
        assert (weight * term).value(p).dtype == dtype
    torch.testing.assert_close((0.0 * term).prox(x, 0.7), x.clamp(min=0), rtol=1e-6, atol=1e-15)


def test_squared_norms_solve_their_problem():
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(3))
    for term, norm in ((bl.SquaredL1(), 1), (bl.SquaredLinf(), torch.inf)):
        # min s/2 |p|^2 + 1/2 |p - x|^2 as min over r of s/2 r^2 + 1/2 dist^2(x, r ball)
        def energy(r, norm=norm):
            u = bl.solve(bl.LeastSquares(x) + r * bl.L1()).x if norm == 1 else x.clamp(-r, r)
            size = u.abs().sum() if norm == 1 else u.abs().max()
            return float(0.7 / 2 * size**2 + (u - x).square().sum() / 2)

        best = scipy.optimize.minimize_scalar(
            energy, bounds=(1e-9, 3.0), method="bounded", options={"xatol": 1e-10}
        )
        p = term.prox(x, 0.7)
        reached = float(0.7 * term.value(p) + (p - x).square().sum() / 2)
        assert reached == pytest.approx(best.fun, rel=1e-9)


Q = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PARAMETERS = {
    "MCP": (lambda a, b: bl.MCP(a, 1 + b), 2),
    "SCAD": (lambda a, b: bl.SCAD(a, 2 + b), 2),
    "LogSum": (lambda a, w: w * bl.LogSum(a), 2),
    "Geman": (lambda a, w: w * bl.Geman(a), 2),
    "ETP": (lambda a, w: w * bl.ETP(a), 2),
    "TruncatedQuadratic": (lambda w: w * bl.TruncatedQuadratic(0.3), 1),
    "MoreauEnvelope": (lambda a, w: w * bl.MoreauEnvelope(bl.L2(), a), 2),
    "Quantile": (lambda a, b, w: w * bl.Quantile(a, b), 3),
    "Absolute": (lambda a, w: w * bl.Absolute(a), 2),
    "KullbackLeibler": (lambda a, b, w: w * bl.KullbackLeibler(a, b), 3),
    "LogBarrier": (lambda w: w * bl.LogBarrier(), 1),
    "Entropy": (lambda w: w * bl.Entropy(), 1),
    "SparseL21": (lambda a, w: w * bl.SparseL21(a), 2),
    "SquaredL1": (lambda w: w * bl.SquaredL1(), 1),
    "SquaredLinf": (lambda w: w * bl.SquaredLinf(), 1),
    "GroupL2": (lambda w: w * bl.GroupL2(torch.tensor([0, 1, 1, 0])), 1),
    "Quadratic": (lambda a, w: w * bl.Quadratic(Q.mT @ Q + a * Q, a), 2),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_prox_has_a_derivative_in_the_parameters(name):
    make, count = PARAMETERS[name]
    x = torch.tensor([[0.31, -1.9, 2.7, -0.62]], requires_grad=True)
    theta = [torch.tensor(v, requires_grad=True) for v in (0.4, 0.6, 0.75)[:count]]

    def prox(x, *theta):
        return make(*theta).prox(x, 0.8)

    assert torch.autograd.gradcheck(prox, (x, *theta))
    assert torch.autograd.gradgradcheck(prox, (x, *theta))
