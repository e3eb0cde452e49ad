"""Declarative nodes: values against closed forms, derivatives against differences."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import bilevel as bl

DOUBLE = torch.float64


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE).requires_grad_()


def squares(y, x):
    return (y - x).square().sum(1)


def total(y, *_):
    return y.sum(1, keepdim=True) - 1


def outside(y, *_):
    return y.square().sum(1, keepdim=True) - 1


def robust(y, x):
    return ((1 + (y - x).square()).sqrt() - 1).sum(1)


def huber(u):
    return torch.where(u.abs() < 1, u.square() / 2, u.abs() - 0.5)


def welsch(u):
    return 1 - (-u.square() / 2).exp()


def truncated(u):
    return u.square().clamp(max=1.0) / 2


def pooling(penalty):
    return bl.DeclarativeNode(lambda y, x: penalty(y - x).sum(1))


def fit(y, w):  # least squares with a weight for each row
    return (w.exp() * (y @ ROWS.T - torch.arange(4.0, dtype=DOUBLE)).square()).sum(1)


def reprojection(y, pixels):
    """Where a camera at the pose y = (rotation, shift) sees the points, against where it saw
    them."""
    seen = POINTS + torch.linalg.cross(y[:, None, :3].expand(-1, 5, 3), POINTS.expand(len(y), 5, 3))
    seen = seen + y[:, None, 3:] + torch.tensor([0.0, 0.0, 5.0], dtype=DOUBLE)
    return (seen[..., :2] / seen[..., 2:] - pixels).square().flatten(1).sum(1)


def generalised(y, *_):
    return (y * (y @ METRIC)).sum(1, keepdim=True) - 1


def rayleigh(y, S):
    return -(y * (((S + S.mT) / 2) @ y[..., None])[..., 0]).sum(1)


def transport(P, C):
    return (P * C + 0.3 * P * (P.clamp(min=1e-9).log() - 1)).flatten(1).sum(1)


def marginals(P, C):
    return torch.cat([P.sum(2) - 1 / 2, P.sum(1)[:, :2] - 1 / 3], 1)


def entropic(y, x):
    return (y - x).cosh().sum(1)


X = draw(2, 3)
ROWS, POINTS = draw(4, 2).detach(), draw(5, 3, seed=1).detach()
METRIC = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.5]], dtype=DOUBLE)
SEEN = POINTS[None, :, :2] / (POINTS[None, :, 2:] + 5) + 0.01 * draw(1, 5, 2, seed=2).detach()
INSIDE = torch.tensor([[0.1, -0.7, 0.3]], dtype=DOUBLE).requires_grad_()
NEAR = torch.tensor([[1.0, 0.1, 0.2], [0.3, 1.0, 0.1]], dtype=DOUBLE)
NODES = {  # the node types of deep-declarative-networks [Gould et al. 2021]
    "no constraint": (bl.DeclarativeNode(entropic), X, torch.zeros(2, 3, dtype=DOUBLE)),
    "linear equality": (bl.DeclarativeNode(entropic, total), X, torch.zeros(2, 3, dtype=DOUBLE)),
    "sphere": (bl.DeclarativeNode(squares, outside), X, torch.ones(2, 3, dtype=DOUBLE)),
    "ball": (bl.DeclarativeNode(squares, None, outside), X, torch.zeros(2, 3, dtype=DOUBLE)),
    "simplex": (
        bl.DeclarativeNode(entropic, total, lambda y, x: -y),
        draw(2, 3, seed=3),
        torch.full((2, 3), 1 / 3, dtype=DOUBLE),
    ),
    "l1 sphere": (
        bl.DeclarativeNode(squares, lambda y, x: y.abs().sum(1, keepdim=True) - 1),
        INSIDE,
        INSIDE.detach() / 1.1,
    ),
    "l-inf sphere": (
        bl.DeclarativeNode(squares, lambda y, x: y.abs().amax(1, keepdim=True) - 1),
        INSIDE,
        INSIDE.detach(),
    ),
    "pseudo-Huber pooling": (bl.DeclarativeNode(robust), X, torch.zeros(2, 1, dtype=DOUBLE)),
    "Huber pooling": (pooling(huber), 2 * draw(2, 5), torch.zeros(2, 1, dtype=DOUBLE)),
    "Welsch pooling": (pooling(welsch), draw(2, 5), torch.zeros(2, 1, dtype=DOUBLE)),
    "truncated pooling": (pooling(truncated), draw(2, 5), torch.zeros(2, 1, dtype=DOUBLE)),
    "weighted least squares": (
        bl.DeclarativeNode(fit),
        draw(1, 4),
        torch.zeros(1, 2, dtype=DOUBLE),
    ),
    "pose from points": (
        bl.DeclarativeNode(reprojection),
        SEEN.requires_grad_(),
        torch.zeros(1, 6, dtype=DOUBLE),
    ),
    "eigenvector": (bl.DeclarativeNode(rayleigh, outside), draw(2, 3, 3), NEAR),
    "generalised eigenvector": (bl.DeclarativeNode(rayleigh, generalised), draw(2, 3, 3), NEAR),
    "optimal transport": (
        bl.DeclarativeNode(transport, marginals),
        draw(1, 2, 3),
        torch.full((1, 2, 3), 1 / 6, dtype=DOUBLE),
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_derivatives(name):
    node, x, y0 = NODES[name]
    solution = lambda x: node(x, y0=y0)  # noqa: E731
    assert gradcheck(solution, x, rtol=1e-5, atol=1e-7)
    assert gradgradcheck(solution, x, rtol=1e-4, atol=1e-6, fast_mode=True)


def test_closed_forms():
    x, zero = X.detach(), torch.zeros(2, 3, dtype=DOUBLE)
    length = x.norm(dim=1, keepdim=True)
    sphere = bl.DeclarativeNode(squares, outside)(x, y0=torch.ones_like(x))
    torch.testing.assert_close(sphere, x / length)
    ball = bl.DeclarativeNode(squares, None, outside)(x, y0=zero)
    torch.testing.assert_close(ball, x / length.clamp(min=1))
    simplex = bl.DeclarativeNode(squares, total, lambda y, x: -y)(x, y0=zero + 1 / 3)
    torch.testing.assert_close(simplex, bl.Simplex().prox(x, 1.0), atol=1e-9, rtol=0)


def test_the_formula():
    """dy/dx = H^-1 A* (A H^-1 A*)^-1 (A H^-1 B - C) - H^-1 B."""
    x = X[:1].detach().requires_grad_()
    node = bl.DeclarativeNode(entropic, outside)
    y = node(x, y0=torch.ones(1, 3, dtype=DOUBLE))
    jacobian = torch.stack([torch.autograd.grad(v, x, retain_graph=True)[0][0] for v in y[0]])
    p, q = y.detach()[0], x.detach()[0]
    A = 2 * p[None]
    nu = -(torch.sinh(p - q) @ A[0]) / (A[0] @ A[0])
    inverse = torch.linalg.inv(torch.diag(torch.cosh(p - q) + 2 * nu))
    B = -torch.diag(torch.cosh(p - q))
    middle = torch.linalg.solve(A @ inverse @ A.T, A @ inverse @ B)
    torch.testing.assert_close(jacobian, inverse @ A.T @ middle - inverse @ B)


def test_what_the_functions_close_over():
    scale = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    node = bl.DeclarativeNode(lambda y: (y - 3 * scale).square().sum(1))
    y = node(y0=torch.zeros(1, 2, dtype=DOUBLE))
    assert gradcheck(lambda s: bl.DeclarativeNode(lambda y: (y - 3 * s).square().sum(1))(
        y0=torch.zeros(1, 2, dtype=DOUBLE)), scale)  # fmt: skip
    y.sum().backward()
    torch.testing.assert_close(scale.grad, torch.tensor(6.0, dtype=DOUBLE))


def test_a_solver_of_your_own():
    asked = []

    def solver(y0, x):
        asked.append(y0.shape)
        return x / x.norm(dim=1, keepdim=True) + 1e-5

    y = bl.DeclarativeNode(squares, outside, solver=solver)(X, y0=torch.ones(2, 3, dtype=DOUBLE))
    torch.testing.assert_close(y, X / X.norm(dim=1, keepdim=True))
    assert asked == [(2, 3)]


def test_many_unknowns_by_products():
    x = draw(1, 400)
    report = bl.Certificate()
    node = bl.DeclarativeNode(entropic, total)
    y = node(x, y0=torch.zeros(1, 400, dtype=DOUBLE), report=report)
    (gradient,) = torch.autograd.grad(y[0, 0], x)
    h = torch.cosh(y - x).detach()[0]
    expected = -(1 / h[0]) * (1 / h) / (1 / h).sum() * h  # off the diagonal, B = -diag h
    torch.testing.assert_close(gradient[0, 1:], expected[1:], rtol=1e-6, atol=1e-9)
    assert report.adjoint_iterations < 100 and report.residual < 1e-10


def test_points_that_are_not_regular():
    zero = torch.zeros(1, 2, dtype=DOUBLE)
    twice = lambda y, x: torch.cat([total(y), 2 * total(y)], 1)  # noqa: E731
    x = torch.tensor([[0.3, 0.1]], dtype=DOUBLE, requires_grad=True)
    with pytest.warns(bl.KinkWarning, match="dependent in 1 of 1 samples"):
        y = bl.DeclarativeNode(squares, twice)(x, y0=zero)
    torch.testing.assert_close(y, torch.tensor([[0.6, 0.4]], dtype=DOUBLE))
    torch.testing.assert_close(  # redundant, and consistent: y has its derivative all the same
        torch.autograd.grad(y[0, 0], x)[0], torch.tensor([[0.5, -0.5]], dtype=DOUBLE)
    )
    border = torch.tensor([[1.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    with pytest.warns(bl.KinkWarning, match="on an inequality that does not press"):
        bl.DeclarativeNode(squares, None, outside)(border, y0=zero + 0.5)


def test_a_loss_that_reads_what_is_not_determined():
    x = draw(1, 2)
    node = bl.DeclarativeNode(lambda y, x: (y.sum(1) - x.sum(1)).square())
    y = node(x, y0=torch.zeros(1, 2, dtype=DOUBLE))
    with pytest.raises(bl.NotUnique):
        torch.autograd.grad(y[0, 0], x)


def test_refusals():
    zero = torch.zeros(1, 2, dtype=DOUBLE)
    apart = lambda y: torch.stack([y[:, 0], y[:, 0] - 1], 1)  # noqa: E731
    with pytest.raises(bl.NotConverged, match="Have the constraints a point in common"):
        bl.DeclarativeNode(lambda y: y.square().sum(1), apart)(y0=zero)
    with pytest.raises(ValueError, match=r"objective of a DeclarativeNode must return \(B,\)"):
        bl.DeclarativeNode(lambda y: y.square().sum())(y0=zero)
    with pytest.raises(ValueError, match=r"equality of a DeclarativeNode must return \(B, p\)"):
        bl.DeclarativeNode(lambda y: y.sum(1), lambda y: y.sum(1))(y0=zero)
    with pytest.raises(ValueError, match=r"For one problem pass y0\[None\]"):
        bl.DeclarativeNode(lambda y: y.sum(1))(y0=zero[0])


def test_float32_reaches_what_rounding_allows():
    x = X.detach().float().requires_grad_()
    y = bl.DeclarativeNode(squares, outside)(x, y0=torch.ones(2, 3))
    torch.testing.assert_close(y, x / x.norm(dim=1, keepdim=True))
    assert torch.autograd.grad(y[0, 0], x)[0].isfinite().all()
    with pytest.raises(TypeError, match="torch.float64 for y of torch.float32"):
        bl.DeclarativeNode(squares)(X, y0=torch.ones(2, 3))


@pytest.mark.parametrize("unit", [1e-12, 1e6])
def test_the_unit_of_the_objective_plays_no_part(unit):
    zero = torch.zeros(2, 3, dtype=DOUBLE)
    free = bl.DeclarativeNode(lambda y, x: unit * entropic(y, x))(X, y0=zero)
    torch.testing.assert_close(free, X)
    one = bl.DeclarativeNode(entropic, total)(X, y0=zero)
    other = bl.DeclarativeNode(lambda y, x: unit * entropic(y, x), total)(X, y0=zero)
    torch.testing.assert_close(one, other)


def test_objectives_without_a_minimum():
    zero = torch.zeros(2, 3, dtype=DOUBLE)
    with pytest.raises(bl.NotConverged, match="is the objective bounded below"):
        far = lambda y0, x: -1e12 * x  # noqa: E731  (where SciPy ends, after seconds)
        bl.DeclarativeNode(lambda y, x: (y * x).sum(1), solver=far)(X, y0=zero)
    with pytest.raises(ValueError, match="no gradient in y"):
        bl.DeclarativeNode(lambda y, x: squares(y.detach(), x))(X, y0=zero)


def test_a_graph_only_where_one_is_asked_for():
    node, start = bl.DeclarativeNode(squares, total), torch.zeros(2, 3, dtype=DOUBLE)
    assert not node(X.detach(), y0=start).requires_grad
    with torch.no_grad():
        assert not node(X, y0=start).requires_grad
    assert node(X[:0], y0=start[:0]).shape == (0, 3)


def hills(y, x):  # minima at y = +-1, a maximum at 0
    return (y.square() - 1).square().sum(1) + (x * y**4).sum(1)


def test_points_that_are_no_minimum():
    zero = torch.zeros(2, 3, dtype=DOUBLE)
    with pytest.raises(bl.NotConverged, match="2 of 2 samples .* falls to both sides"):
        bl.DeclarativeNode(hills)(X.detach() ** 2, y0=zero)
    start = torch.full_like(zero, 0.1)
    y = bl.DeclarativeNode(hills)(X.detach() ** 2, y0=start)
    torch.testing.assert_close(y, (1 + X.detach() ** 2) ** -0.5)
    S = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=DOUBLE))[None]
    middle = torch.tensor([[0.0, 1.0, 0.0]], dtype=DOUBLE)
    with pytest.warns(bl.ConvergenceWarning, match="1 of 1 samples .* Pass another y0"):
        y = bl.DeclarativeNode(rayleigh, outside, on_fail="warn")(S, y0=middle)
    torch.testing.assert_close(y, middle)  # an eigenvector, not that of the largest eigenvalue
    y = bl.DeclarativeNode(rayleigh, outside)(S, y0=middle + 0.1)
    torch.testing.assert_close(y.abs(), torch.tensor([[1.0, 0.0, 0.0]], dtype=DOUBLE))


def test_a_concave_objective_at_a_corner_is_at_a_minimum():
    box = lambda y, x: torch.cat([y - 1, -1 - y], 1)  # noqa: E731
    x = torch.full((1, 2), 0.1, dtype=DOUBLE)
    y = bl.DeclarativeNode(lambda y, x: -squares(y, x), None, box)(x, y0=x - 0.3)
    torch.testing.assert_close(y, -torch.ones_like(y))


@pytest.mark.parametrize("found", [None, torch.zeros(3, dtype=DOUBLE), torch.zeros(2, 3)])
def test_what_a_solver_of_your_own_must_give(found):
    node = bl.DeclarativeNode(squares, solver=lambda y0, x: found)
    with pytest.raises(ValueError, match="the solver of a DeclarativeNode gives"):
        node(X, y0=torch.zeros(2, 3, dtype=DOUBLE))


def test_an_empty_batch():
    y = bl.DeclarativeNode(squares)(X[:0], y0=torch.zeros(0, 3, dtype=DOUBLE))
    assert y.shape == (0, 3)
