"""Saddle points and games as a lower level: where forward-backward turns in circles."""

import pytest
import torch

import bilevel as bl
from bilevel import testing

pytestmark = pytest.mark.usefixtures("float64")

A = torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
SOLVERS = [bl.ExtraGradient(), bl.Optimistic()]
EACH = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


def bilinear(A, b, c):
    """min over u, max over v of <u, A v> + <b, u> - <c, v>, x = (u, v): no strong monotonicity."""

    def field(x):
        u, v = x.chunk(2, 1)
        return torch.cat([v @ A.T + b, c - u @ A], 1)

    return bl.VectorField(field)


def saddle(A, b, c, **options):
    x0 = torch.zeros(len(b), 2 * len(A))
    return bl.argmin(bilinear(A, b, c), x0=x0, tol=1e-11, max_iter=200_000, **options)


@EACH
def test_a_bilinear_saddle_point_and_its_derivative(solver):
    b, c = torch.randn(2, 3), torch.randn(2, 3)
    matrix = A + 2 * torch.eye(3)
    answer = torch.cat([torch.linalg.solve(matrix.T, c.T).T, torch.linalg.solve(matrix, -b.T).T], 1)
    assert torch.allclose(saddle(matrix, b, c, solver=solver), answer, atol=1e-8)
    testing.gradients_agree(lambda *t: saddle(*t, solver=solver), [matrix, b, c])


def test_forward_backward_turns_away():
    b, c = torch.ones(1, 3), torch.ones(1, 3)
    for solver in (bl.ForwardBackward(step_size=0.1), bl.GradientDescent(step_size=0.1)):
        with pytest.raises(bl.NotConverged, match=r"a game say, wants ExtraGradient\(\)"):
            bl.solve(
                bilinear(A + 2 * torch.eye(3), b, c), x0=torch.zeros(1, 6), solver=solver,
                acceleration=bl.Plain(), tol=1e-5, max_iter=3000,
            )  # fmt: skip


@EACH
def test_a_constrained_game_meets_its_variational_inequality(solver):
    """On a box: <F(x), w - x> >= 0 for every w in it, and no player gains by moving alone."""
    b, c = torch.randn(4, 3), torch.randn(4, 3)
    game = bilinear(A, b, c)
    energy = game + bl.Box(-1.0, 1.0)
    x = bl.solve(energy, x0=torch.zeros(4, 6), solver=solver, tol=1e-11, max_iter=100_000).x
    pull = game.grad(x)
    least = (pull * x).sum(1) + pull.abs().sum(1)  # max over w of <F, x - w>
    assert (least < 1e-8).all()


@EACH
def test_the_value_of_a_game_by_the_envelope(solver):
    """Its derivative is that of the payoff at the saddle point, held fixed."""
    b, c = torch.randn(2, 3), torch.randn(2, 3)

    def value(A, fixed):
        def field(x):
            u, v = x.chunk(2, 1)
            return torch.cat([v @ A.T + u + b, v - u @ A + c], 1)

        x = bl.argmin(
            bl.VectorField(field) + bl.Box(-0.5, 0.5), x0=torch.zeros(2, 6), solver=solver,
            tol=1e-12,
        )  # fmt: skip
        u, v = (x.detach() if fixed else x).chunk(2, 1)
        sizes = (u.square() - v.square()).sum(1) / 2
        return ((u @ A) * v).sum(1) + sizes + (b * u).sum(1) - (c * v).sum(1)

    A_ = A.clone().requires_grad_()
    full, envelope = (torch.autograd.grad(value(A_, f).sum(), A_)[0] for f in (False, True))
    assert torch.allclose(full, envelope, atol=1e-8)


@EACH
def test_a_step_beyond_the_limit_and_what_it_cannot_take(solver):
    kind = type(solver)
    with pytest.raises(ValueError, match="must be below"):
        bl.solve(bl.LeastSquares(torch.ones(1, 2)), solver=kind(step_size=1.0))
    with pytest.raises(TypeError, match="needs a VectorField or a smooth f"):
        bl.solve(bl.L1() + bl.Box(-1.0, 1.0), x0=torch.ones(1, 2), solver=solver)
    with pytest.raises(TypeError, match="at most one term with a prox"):
        y = torch.ones(1, 2)
        bl.solve(bl.LeastSquares(y) + bl.L1() @ bl.Gradient(dims=1), solver=solver)


def test_newton_refuses_a_field_whose_jacobian_is_not_symmetric():
    with pytest.raises(TypeError, match="a symmetric Hessian, got a VectorField"):
        saddle(A, torch.ones(1, 3), torch.ones(1, 3), solver=bl.Newton())


def test_a_critic_that_answers_implicitly_or_by_unrolled_steps():
    """max over phi of F(phi, theta) - |phi|^2 / 2, a critic of points against shifted ones; the
    derivative of F at its answer, of the term in phi that the penalty leaves, too."""
    real, noise = torch.randn(1, 40, 2), torch.randn(1, 40, 2)

    def payoff(phi, theta):
        score = lambda points: ((points @ phi[:, :2, None])[..., 0] + phi[:, 2:]).tanh()  # noqa: E731
        return (score(real) - score(noise + theta)).mean(1)

    def critic(theta):
        return bl.Potential(lambda phi: phi.square().sum(1) / 2 - payoff(phi, theta))

    def implicit(theta):
        x0, solver = torch.zeros(1, 3), bl.GradientDescent(step_size=0.2)
        return payoff(bl.argmin(critic(theta), x0=x0, solver=solver, tol=1e-12), theta)

    def unrolled(theta):
        net = bl.unrolled(bl.GradientDescent(step_size=0.2), 300)
        return payoff(net(critic(theta), torch.zeros(1, 3)), theta)

    theta = torch.tensor([1.0, -0.5])
    testing.gradients_agree(implicit, [theta])
    theta.requires_grad_()
    slopes = [torch.autograd.grad(f(theta).sum(), theta)[0] for f in (implicit, unrolled)]
    assert torch.allclose(*slopes, atol=1e-9) and slopes[0].abs().max() > 1e-2
