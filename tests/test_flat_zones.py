"""The derivative of 2-D total variation on its flat zones, and the finish of small images."""

import pytest
import torch

import bilevel as bl
from bilevel.fixpoint import Fixpoint

TIGHT = {"tol": 1e-12, "max_iter": 50_000}


def image(size=16, channels=1, seed=0, noise=0.1):
    """(1, channels, size, size): a disc on two halves, with noise."""
    i, j = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    disc = ((i - size / 2) ** 2 + (j - size / 2) ** 2 < (size / 3) ** 2).double()
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(1, channels, size, size, generator=rng, dtype=torch.float64)
    return disc + 0.5 * (j > size / 2) + noise * drawn


def energy(y, weight, mu=1.0, **kind):
    return mu * bl.LeastSquares(y) + weight * bl.TotalVariation(**kind)


KINDS = [{"isotropic": True}, {"isotropic": False}, {"isotropic": True, "coupled": True}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_gradient_is_that_of_differences(kind):
    y = image(channels=3 if "coupled" in kind else 1)
    rng = torch.Generator().manual_seed(5)
    draw = [torch.randn(y.shape, generator=rng, dtype=torch.float64) for _ in range(2)]
    loss, along = draw
    weight, mu = torch.tensor(0.3).double(), torch.tensor(1.2).double()
    parameters = [part.clone().requires_grad_() for part in (y, weight, mu)]
    report = bl.Certificate()
    a, b, c = parameters
    with bl.accuracy(adjoint_tol=1e-9):
        x = bl.argmin(energy(a, b, c, **kind), diff=bl.FlatZones(), report=report, **TIGHT)
    gradients = torch.autograd.grad((x * loss).sum(), parameters)
    assert report.adjoint_residual.item() <= 1e-6

    def value(y, weight, mu):
        return (bl.solve(energy(y, weight, mu, **kind), **TIGHT).x * loss).sum()

    h = 1e-5
    moves = [(h * along, 0, 0), (0, h, 0), (0, 0, h)]
    directions = [along, 1.0, 1.0]
    for gradient, move, direction in zip(gradients, moves, directions, strict=True):
        up = value(y + move[0], weight + move[1], mu + move[2])
        down = value(y - move[0], weight - move[1], mu - move[2])
        expected = (up - down) / (2 * h)
        torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-6, atol=1e-6)


def test_a_weight_for_each_pixel_has_its_gradient():
    y = image(8)
    weight = 0.2 + 0.1 * torch.rand(8, 8, generator=torch.Generator().manual_seed(1)).double()
    parameter = weight.clone().requires_grad_()
    x = bl.argmin(energy(y, parameter), diff=bl.FlatZones(), **TIGHT)
    (gradient,) = torch.autograd.grad(x.square().sum(), parameter)
    (expected,) = torch.autograd.grad(
        bl.argmin(energy(y, parameter), diff=bl.FixedPoint(), **TIGHT).square().sum(), parameter
    )
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_without_weight_keep_the_gradient_right(channels):
    y = image(10, channels).requires_grad_()
    weight = torch.full((10, 10), 0.3, dtype=torch.float64)
    weight[2:5, 3:7] = 0
    weight[7, :] = 0
    kind = {"coupled": True} if channels > 1 else {}
    loss = torch.randn(y.shape, generator=torch.Generator().manual_seed(4)).double()

    def gradient(diff, noisy):
        with bl.accuracy(adjoint_tol=1e-9):
            x = bl.argmin(energy(noisy, weight, **kind), diff=diff, **TIGHT)
        return torch.autograd.grad((x * loss).sum(), noisy)[0]

    torch.testing.assert_close(
        gradient(bl.FlatZones(), y), gradient(bl.FixedPoint(), y), rtol=1e-6, atol=1e-7
    )


def test_a_batch_does_what_its_samples_do():
    y = torch.cat([image(12), image(12, seed=1)]).requires_grad_()
    weight = torch.tensor([0.2, 0.5], dtype=torch.float64).reshape(2, 1, 1, 1).requires_grad_()
    x = bl.argmin(energy(y, weight), tol=1e-10, diff=bl.FlatZones())
    together = torch.autograd.grad(x.square().sum(), (y, weight))
    for i in range(2):
        alone = bl.argmin(energy(y[i : i + 1], weight[i : i + 1]), tol=1e-10, diff=bl.FlatZones())
        for whole, part in zip(
            together, torch.autograd.grad(alone.square().sum(), (y, weight)), strict=True
        ):
            torch.testing.assert_close(whole[i], part[i], rtol=1e-5, atol=1e-8)


def test_float32_and_separate_channels():
    y = torch.cat([image(12), image(12, seed=1)], 1).float().requires_grad_()
    x = bl.argmin(energy(y, 0.3), tol=1e-6, diff=bl.FlatZones())
    (gradient,) = torch.autograd.grad(x.sum(), y)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(gradient, torch.ones_like(y), atol=1e-3, rtol=0)  # means keep sums


@pytest.mark.parametrize("power", [-90, 90])
def test_cotangents_of_any_size_are_solved_alike(power):
    y, scale = image().float(), 2.0**power  # whose square float32 does not know
    y.requires_grad_()
    x = bl.argmin(energy(y, 0.3), diff=bl.FlatZones(), tol=1e-4)
    loss = image(seed=4).float()
    plain, scaled = (torch.autograd.grad(x, y, k * loss, retain_graph=True)[0] for k in (1, scale))
    assert bool(plain.any()) and torch.equal(scaled, scale * plain)


def test_the_adjoint_is_as_accurate_as_the_gap_unless_asked():
    y, report, asked = image(48).requires_grad_(), bl.Certificate(), []
    x = bl.argmin(energy(y, 0.1), tol=1e-5, diff=bl.FlatZones(), report=report)
    (loose,) = torch.autograd.grad(x.square().sum() + x[0, 0, 3].sum(), y)
    assert report.adjoint_residual.item() <= min(10 * report.gap.item() ** 0.5, 1e-2)
    with bl.accuracy(1e-5, adjoint_tol=1e-10, report=asked):
        x = bl.argmin(energy(y, 0.1), diff=bl.FlatZones())
    (tight,) = torch.autograd.grad(x.square().sum() + x[0, 0, 3].sum(), y)
    assert asked[0].adjoint_residual.item() <= 1e-10
    assert 0 < (loose - tight).norm() <= 3e-2 * tight.norm()  # the gap leaves 9e-2


def test_no_images_have_an_empty_gradient():
    y = torch.zeros(0, 1, 8, 8, requires_grad=True)
    x = bl.argmin(energy(y, 0.1), diff=bl.FlatZones())
    (gradient,) = torch.autograd.grad(x.sum(), y)
    assert gradient.shape == y.shape


def test_a_loss_that_is_nan_is_refused():
    y = image(16).requires_grad_()
    x = bl.argmin(energy(y, 0.1), tol=1e-5, diff=bl.FlatZones())
    with pytest.raises(bl.NotConverged, match="adjoint solve"):
        torch.autograd.grad((torch.nan * x).sum(), y)


def test_a_residual_that_no_look_measured_is_worked_out_when_read():
    problem = energy(torch.cat([image(16), image(16, seed=1, noise=0.3)]), 0.1)
    solution = bl.solve(problem, tol=1e-3)  # ended by the gap, one sample before the other
    assert len(solution.iterations.unique()) == 2
    z = (solution.x, solution.x, *solution.dual)
    t = Fixpoint(problem, solution.solver).T(z)
    moved = (z[0] - t[0]).flatten(1).norm(dim=1) / t[0].flatten(1).norm(dim=1)
    assert (0 < moved).all() and (moved <= 1.01 * solution.residual).all()


def test_what_it_does_not_cover_is_refused():
    y = image(6)
    for other in (
        bl.Huber(0.1, y) + bl.TotalVariation(),
        bl.LeastSquares(y) + bl.TotalVariation(dims=3),
        bl.LeastSquares(y) + bl.L1(),
    ):
        with pytest.raises(TypeError, match="FlatZones differentiates"):
            bl.argmin(other, diff=bl.FlatZones())


def test_a_second_derivative_is_refused():
    y = image(6).requires_grad_()
    x = bl.argmin(energy(y, 0.1), diff=bl.FlatZones())
    (gradient,) = torch.autograd.grad(x.square().sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        torch.autograd.grad(gradient.sum(), y)


def test_a_dual_has_no_derivative_and_says_so():
    y = image(6).requires_grad_()
    value = bl.minimum(energy(y, 0.1), diff=bl.FlatZones())
    (gradient,) = torch.autograd.grad(value.sum(), y, create_graph=True)
    with pytest.raises(RuntimeError, match="dual|second"):
        torch.autograd.grad(gradient.square().sum(), y)


@pytest.mark.parametrize(
    "size, seed, isotropic, weight",
    [
        (24, 0, True, 0.1),
        (24, 0, False, 0.1),
        (40, 1, True, 0.1),
        (40, 1, False, 0.1),
        (40, 0, True, 0.1),  # jumps of 5e-10
        (40, 3, True, 0.3),
    ],
)
def test_small_images_reach_rounding(size, seed, isotropic, weight):
    """Plain primal-dual steps leave 1e-5 in x of such images after 60 000 of them."""
    y = image(size, seed=seed)
    problem = energy(y, weight, isotropic=isotropic)
    solution = bl.solve(problem, tol=1e-14, max_iter=1000)
    assert solution.gap.item() <= 1e-14
    assert problem.distance(solution.x, solution.dual).item() <= 1e-6  # of rounding, a root
    solver = solution.solver
    fixpoint = Fixpoint(problem, solver)
    z = solver.assemble(problem, solution.x, solution.dual)
    with torch.no_grad():
        for _ in range(500):
            z = fixpoint.T(z)
    assert (z[0] - solution.x).abs().max() <= 1e-8  # where the plain steps stay


@pytest.mark.parametrize("shape", [(1, 1, 1, 7), (1, 1, 7, 1), (1, 1, 1, 1), (2, 1, 5, 4)], ids=str)
def test_the_finish_takes_images_of_any_shape(shape):
    y = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    problem = energy(y, 0.1)
    solver = bl.PrimalDual().prepare(problem, y)
    fixpoint = Fixpoint(problem, solver)
    with torch.no_grad():
        start = bl.solve(problem, tol=1e-4)
        z = solver.assemble(problem, start.x, start.dual)
        z = fixpoint.kernel(z).finish(z)
    assert fixpoint.gap(z, torch.ones(())).abs().max() <= 1e-14
    exact = bl.solve(problem, tol=1e-14).x
    torch.testing.assert_close(z[0], exact, rtol=0, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS[:2], ids=str)
def test_partly_smooth_hands_over_what_is_too_large_for_dense_algebra(kind):
    y = image(32)
    gradients = []
    for diff in (bl.PartlySmooth(), bl.FlatZones()):
        weight = torch.tensor(0.3).double().requires_grad_()
        x = bl.argmin(energy(y, weight, **kind), tol=1e-9, diff=diff)
        gradients.append(torch.autograd.grad(x.square().sum(), weight)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=0)
