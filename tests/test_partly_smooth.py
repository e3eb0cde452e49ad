"""PartlySmooth: the derivative along the active manifold, on every non-smooth term."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.differentiation.active import Active
from bilevel.differentiation.tangent import Spanned
from problems import Flatten
from registry import TERMS, Draw

pytestmark = pytest.mark.usefixtures("float64")


def non_smooth(case):
    draw = Draw(4, case.event)
    term = case.make(draw)
    kinked = isinstance(term, bl.Proximable | bl.Composed) and not isinstance(term, bl.Smooth)
    convex = torch.as_tensor(term.strong_convexity(draw.x()) >= 0).all()
    return kinked and case.convex and case.valued and bool(convex)


CASES = [case for case in TERMS if non_smooth(case)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_term_against_differences_of_solutions(case):
    """min 1/2 |A x - b|^2 + J(x): d/db in a random direction, A of condition 2."""
    draw = Draw(4, case.event)
    term, b, n = case.make(draw), 2 * draw.x().flatten(1), torch.Size(case.event).numel()
    A = torch.linalg.qr(draw.normal(n, n)).Q * torch.linspace(1, 2, n)

    def solution(b, diff=None):
        data = bl.LeastSquares(b) @ bl.Matrix(A) @ Flatten(*case.event)
        return bl.argmin(data + term, tol=1e-12, max_iter=100_000, diff=diff)

    g, d, h = draw.x(), draw.normal(*b.shape), 1e-5
    at = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((g * solution(at, bl.PartlySmooth())).sum(), at)
    with torch.no_grad():
        moved = (solution(b + h * d) - solution(b - h * d)) / (2 * h)
    expected = (g * moved).flatten(1).sum(1)
    torch.testing.assert_close((gradient * d).sum(1), expected, rtol=1e-5, atol=1e-5)


def lasso(b, A, weight, **options):
    return bl.argmin(bl.LeastSquares(b) @ bl.Matrix(A) + weight * bl.L1(), tol=1e-12, **options)


def test_a_lasso_of_1000_features_has_a_system_of_its_active_ones():
    """4 of 1000 active: the closed form on them, to rounding, with a basis of 4 columns."""
    draw = Draw(1, (1000,))
    A, x0 = draw.normal(200, 1000), torch.zeros(1, 1000)
    x0[0, :4] = torch.tensor([3.0, -2, 4, 2.5])
    b = (x0 @ A.T + 0.1 * draw.normal(1, 200)).requires_grad_()
    weight = torch.tensor(60.0, requires_grad=True)
    x = lasso(b, A, weight, diff=bl.PartlySmooth())
    on = x.detach()[0].nonzero()[:, 0]
    assert on.tolist() == [0, 1, 2, 3]
    problem = bl.LeastSquares(b) @ bl.Matrix(A) + weight * bl.L1()
    tangent = Active(problem, (x.detach(),)).tangent
    assert isinstance(tangent, Spanned) and tangent.basis.shape == (1, 1000, 4)
    gb, gw = torch.autograd.grad((x - x0).square().sum(), (b, weight))
    g, H = 2 * (x - x0).detach()[0, on], A[:, on].T @ A[:, on]
    torch.testing.assert_close(gb[0], A[:, on] @ torch.linalg.solve(H, g), rtol=1e-9, atol=1e-12)
    expected = -torch.linalg.solve(H, g) @ x.detach()[0, on].sign()
    torch.testing.assert_close(gw, expected, rtol=1e-9, atol=1e-12)


def test_many_active_features_are_solved_by_conjugate_gradients():
    """More than 512 coordinates free: the same gradient as Implicit's."""
    draw = Draw(2, (600,))
    b, scale = draw.x(), 0.5 + draw.positive(600)

    def gradient(diff):
        at = b.clone().requires_grad_()
        energy = bl.LeastSquares(at) + bl.LeastSquares(draw.x()) @ bl.Mask(scale) + 1e-3 * bl.L1()
        x = bl.argmin(energy, tol=1e-12, diff=diff)
        return torch.autograd.grad(x.square().sum(), at)[0]

    draw = Draw(2, (600,), seed=1)
    ours = gradient(bl.PartlySmooth())
    draw = Draw(2, (600,), seed=1)
    torch.testing.assert_close(ours, gradient(bl.Implicit()), rtol=1e-9, atol=1e-9)


def test_a_term_without_a_manifold_and_too_large_is_refused():
    b = Draw(1, (30, 20)).x()
    energy = bl.LeastSquares(b.requires_grad_()) + bl.Nuclear()
    with pytest.raises(TypeError, match="Nuclear declares no manifold.* 600 coordinates"):
        bl.argmin(energy, diff=bl.PartlySmooth())
    with pytest.raises(ValueError, match="order must be 1 or more, got 0"):
        bl.PartlySmooth(order=0)


@pytest.mark.parametrize("solver", [bl.ForwardBackward, bl.PrimalDual])
def test_at_a_kink_it_warns_and_gives_one_of_the_sides(solver):
    """Soft thresholding of 1, 0.5, 0.2 by 0.5: the second coordinate just vanishes. Its derivative
    is 1 on one side, 0 on the other."""
    y = torch.tensor([[1.0, 0.5, 0.2]], requires_grad=True)
    report = bl.Certificate()
    energy = bl.LeastSquares(y) + 0.5 * bl.L1()
    with pytest.warns(bl.KinkWarning, match="1 of 1 solutions lie at a kink"):
        x = bl.argmin(energy, solver=solver(), diff=bl.PartlySmooth(), tol=1e-12, report=report)
    assert float(report.margin) <= 1e-9
    (gradient,) = torch.autograd.grad(x.sum(), y)
    assert min(abs(float(gradient[0, 1]) - side) for side in (0, 1)) <= 1e-9
    torch.testing.assert_close(gradient[0, ::2], torch.tensor([1.0, 0]), rtol=0, atol=1e-9)


def test_a_zero_margin_of_a_dual_that_is_not_unique_is_no_kink():
    """Two total variations share the tension of an edge, 0.08; the weaker one takes its most."""
    y = torch.tensor([[0.0, 0.06, 1.0]], requires_grad=True)
    l1, D = bl.L1(), bl.Gradient(1)
    energy = bl.LeastSquares(y) + 0.02 * l1 @ D + 0.08 * l1 @ D
    x = bl.argmin(energy, diff=bl.PartlySmooth(), tol=1e-12)
    duals = torch.tensor([[[[0.02, 0.02, 0]]], [[[0.06, 0.08, 0]]]])
    active = Active(energy, (x.detach(), *duals))
    assert float(active.margin) <= 1e-9 and not active.dual_unique.any()
    (gradient,) = torch.autograd.grad(x[0, 0], y)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, 0.5, 0]]), rtol=0, atol=1e-9)


def test_the_certificate_knows_since_when_the_active_set_has_kept_and_how_far_it_is_from_changing():
    y = torch.tensor([[1.0, 0.3, -2.0]], requires_grad=True)
    for diff in (bl.FixedPoint(), bl.PartlySmooth(), bl.Implicit()):
        report = bl.Certificate()
        energy = bl.LeastSquares(y) + 0.5 * bl.L1()
        bl.argmin(energy, solver=bl.ForwardBackward(), diff=diff, report=report)
        torch.testing.assert_close(report.margin, torch.tensor([0.2]))
    A = Draw(1, (12,)).normal(8, 12)
    b = Draw(1, (8,), seed=3).x().requires_grad_()
    report = bl.Certificate()
    lasso(b, A, 0.3, report=report, acceleration=bl.Plain())
    settled = int(report.iterations - report.identified)
    x, signs = torch.zeros(1, 12), []
    problem = bl.LeastSquares(b) @ bl.Matrix(A) + 0.3 * bl.L1()
    solver = bl.ForwardBackward().prepare(problem, x)
    with torch.no_grad():
        for _ in range(int(report.iterations)):
            (x,) = solver.step(problem, (x,))
            signs.append(x != 0)
    assert all(torch.equal(s, signs[-1]) for s in signs[settled:])
    assert 0 < int(report.identified) < int(report.iterations)


def test_recording_starts_when_the_active_set_has_settled():
    """No step before is recorded, and the gradient is better than that of the whole run."""
    A, b = Draw(2, (12,)).normal(8, 12), Draw(2, (8,), seed=3).x()
    recorded = []

    class Watched(bl.ForwardBackward):
        def step(self, problem, z):
            recorded.append(torch.is_grad_enabled())
            return super().step(problem, z)

    def gradient(diff, tol=1e-8, **options):
        at = b.clone().requires_grad_()
        energy = bl.LeastSquares(at) @ bl.Matrix(A) + 0.3 * bl.L1()
        x = bl.argmin(energy, tol=tol, diff=diff, **options)
        return torch.autograd.grad(x.square().sum(), at)[0]

    exact = gradient(bl.FixedPoint(), 1e-13)
    late = gradient(bl.Unroll(last=bl.Identified()), solver=Watched(), acceleration=bl.Plain())
    first = recorded.index(True, 10)  # the first steps look whether anything requires a gradient
    assert first >= 60 and not any(recorded[10:first])
    whole = gradient(bl.Unroll(), acceleration=bl.Plain())
    assert (late - exact).norm() <= 1e-6 * exact.norm()
    assert (late - exact).norm() <= 0.1 * (whole - exact).norm()
    with pytest.raises(ValueError, match="Identified needs steps >= 1, got 0"):
        bl.Identified(0)


def unrolled(diff, tol=1e-9):
    """Gradients in y and the weight of <v, x>, and the certificate, where Newton steps end runs."""
    y, weight = Draw(2, (9,), seed=4).x().requires_grad_(), torch.tensor(0.4).requires_grad_()
    report = bl.Certificate()
    K = bl.Matrix(Draw(2, (9,)).normal(6, 9))
    energy = bl.LeastSquares(y) + weight * bl.L1() @ K + bl.Box(-0.5, 0.8)
    x = bl.argmin(energy, tol=tol, diff=diff, report=report)
    grads = torch.autograd.grad((x * torch.linspace(-1, 2, 9)).sum(), (y, weight))
    return torch.cat([g.flatten() for g in grads]), report


def test_what_is_recorded_since_the_identification_is_no_jump():
    """The Newton steps that end a run leave nothing to record: dz/dθ would be that of one step."""
    exact, _ = unrolled(bl.FixedPoint(), 1e-13)
    for tol in (1e-6, 1e-9, 1e-12):
        late, report = unrolled(bl.Unroll(last=bl.Identified()), tol)
        error = float((late - exact).norm() / exact.norm())
        assert error <= 1e3 * tol + 1e-10
        assert error <= 30 * float(report.estimate.max()) + 1e-11


@pytest.mark.parametrize("steps", [3, 30, 300])
def test_unrolling_knows_what_it_leaves_of_the_adjoint(steps):
    """|(dT/dz)*^k v| / |v| of the last k steps: the adjoint residual of k terms of the series."""
    late, report = unrolled(bl.Unroll(last=steps))
    same, truncated = unrolled(bl.Truncated(steps))
    torch.testing.assert_close(late, same, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        report.adjoint_residual, truncated.adjoint_residual, rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("scale", [1e-7, 1e7])
def test_an_active_set_lost_in_the_scale_is_told(scale):
    """x and the slope differ by scale^2: x + slope keeps no digit of the smaller one."""
    A, b = Draw(2, (12,)).normal(20, 12), Draw(2, (20,), seed=3).x().requires_grad_()
    energy = bl.LeastSquares(b) @ bl.Matrix(scale * A) + 2.0 * scale * bl.L1()
    with pytest.warns(bl.KinkWarning, match=r"rescale the problem or use\s+FixedPoint\(\)"):
        bl.argmin(energy, diff=bl.PartlySmooth())
    (found,) = torch.autograd.grad(bl.argmin(energy).sum(), b)  # by T
    once = bl.argmin(bl.LeastSquares(b) @ bl.Matrix(A) + 2.0 * bl.L1(), tol=1e-12)
    (exact,) = torch.autograd.grad(once.sum(), b)
    torch.testing.assert_close(scale * found, exact, rtol=1e-6, atol=1e-8)


def generalised(y, weight):
    """Second-order total generalised variation of (image, field), x of shape (B, 3, H, W)."""
    u, w = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
    first = weight * bl.L21(dim=1) @ (bl.Gradient() @ u - w)
    second = 0.7 * weight * bl.L21(dim=1) @ bl.SymmetrizedGradient() @ w
    return bl.LeastSquares(y) @ u + first + second


SUMS = {
    "total variation on a simplex": lambda y, w: (
        bl.LeastSquares(y) + w * bl.TotalVariation(dims=1) + bl.Simplex()
    ),
    "low rank and sparse": lambda y, w: (
        bl.LeastSquares(y.reshape(-1, 2, 3)) + w * bl.Nuclear() + 0.3 * w * bl.L1()
    ),
    "lengths and a ball": lambda y, w: (
        bl.LeastSquares(y.reshape(-1, 3, 2)) + w * bl.L21() + bl.L2Ball(0.9)
    ),
    "fused lasso": lambda y, w: (
        bl.LeastSquares(y) + w * bl.TotalVariation(dims=1) + 0.5 * w * bl.L1()
    ),
    "sorted and below a bound": lambda y, w: (
        bl.LeastSquares(y) + w * bl.SortedL1(torch.linspace(1, 0.2, 6)) + bl.Box(-0.5, 0.5)
    ),
    "analysis in the maximum norm": lambda y, w: (
        bl.LeastSquares(y) + w * bl.Linf() @ bl.Matrix(Draw().normal(4, 6))
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_have_first_and_second_derivatives(name):
    """By data and weight: autograd against central differences, twice."""
    y = Draw(1, (6,), seed=4).x()
    weight = torch.tensor(0.25)

    def solution(y, weight):
        return bl.argmin(SUMS[name](y, weight), diff=bl.PartlySmooth(), tol=1e-13)

    testing.gradients_agree(solution, (y, weight), 1e-5)
    testing.gradgradcheck(solution, (y, weight))


def test_total_generalised_variation():
    """Its field is determined up to what no loss of the image reads."""
    y = Draw(1, (3, 3), seed=2).x()

    def image(y, weight):
        x0 = torch.zeros(1, 3, 3, 3)
        energy = generalised(y, weight)
        return bl.argmin(energy, x0=x0, diff=bl.PartlySmooth(), tol=1e-12, max_iter=10**6)[:, 0]

    testing.gradients_agree(image, (y, torch.tensor(0.3)), 1e-5, h=1e-5)


def test_where_nothing_can_move_the_gradient_is_that_of_the_walls():
    black = -torch.rand(1, 1, 6, 7, generator=torch.Generator().manual_seed(0)) - 0.1
    weight = torch.tensor(0.1, requires_grad=True)
    x = bl.argmin(bl.LeastSquares(black) + weight * bl.TotalVariation() + bl.NonNegative())
    (gradient,) = torch.autograd.grad(x.sum(), weight)
    assert not x.any() and gradient == 0
    upper = torch.ones(1, 3, requires_grad=True)
    D = torch.eye(3).diff(dim=0)
    energy = bl.LeastSquares(torch.tensor([[5.0, 6.0, 7.0]])) + 0.1 * bl.L1() @ bl.Matrix(D)
    x = bl.argmin(energy + bl.Box(0.0, upper), diff=bl.PartlySmooth())
    (gradient,) = torch.autograd.grad(x.sum(), upper)
    torch.testing.assert_close(gradient, torch.ones(1, 3))


def test_one_of_several_vertices_where_nothing_can_move_is_at_a_kink():
    K = torch.tensor([[1.0, 1], [1, -1], [1, 0]]).double().requires_grad_()
    lower = torch.tensor([[2.0, 0.5], [-3, -1.5]]).double()
    upper = torch.tensor([[3.0, 1.0]]).double()
    energy = bl.L1() @ bl.Matrix(K) + bl.Box(lower, upper)
    with pytest.warns(bl.KinkWarning, match="1 of 2"):
        x = bl.argmin(energy, x0=lower, solver=bl.PrimalDual(), diff=bl.PartlySmooth())
    torch.testing.assert_close(x[0], lower[0])
