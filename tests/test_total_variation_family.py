"""Total variation inside larger problems, against LPs, relations and energies in NumPy."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

import bilevel as bl
from bilevel import testing
from references import REFERENCES
from references.total_variation import differences, tv2d_coupled

F64 = torch.float64
SHAPE = (5, 4)
N = SHAPE[0] * SHAPE[1]
D = differences(SHAPE).toarray()  # (2 N, N)
rng = np.random.default_rng(0)
Y = np.add.outer(np.arange(5) > 2, 0.1 * np.arange(4)) + 0.2 * rng.standard_normal(SHAPE)
MASK = (rng.random(SHAPE) < 0.6).astype(float)
KERNEL = torch.tensor([[0.1, 0.2, 0.0], [0.1, 0.3, 0.1], [0.0, 0.1, 0.1]], dtype=F64)


def tensor(a):
    return torch.tensor(a, dtype=F64)[None, None]


def l1_minimiser(blocks, constants):
    """argmin sum_i |A_i x - b_i|_1 by a linear program, A_i and b_i already weighted."""
    A, b = np.vstack(blocks), np.concatenate(constants)
    m, n = A.shape
    eye = np.eye(m)
    answer = linprog(
        np.concatenate([np.zeros(n), np.ones(m)]),
        A_ub=np.block([[A, -eye], [-A, -eye]]),
        b_ub=np.concatenate([b, -b]),
        bounds=(None, None),
    )
    return answer.x[:n], answer.fun


def test_tv_l1_is_a_linear_program():
    w = 0.55
    energy = bl.Absolute(tensor(Y)) + w * bl.TotalVariation(isotropic=False)
    _, least = l1_minimiser([np.eye(N), w * D], [Y.ravel(), np.zeros(2 * N)])
    solution = bl.solve(energy, tol=1e-9)
    assert abs(energy.value(solution.x).item() - least) <= 1e-8 * least


def test_tgv_with_absolute_data_is_a_linear_program():
    x, a, b = torch.zeros(1, 3, *SHAPE, dtype=F64), 0.4, 0.6
    u, field = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
    first, second = bl.Gradient() @ u - field, bl.SymmetrizedGradient() @ field
    energy = bl.Absolute(tensor(Y)[0]) @ u + a * bl.L1() @ first + b * bl.L1() @ second
    basis = torch.eye(3 * N, dtype=F64).reshape(3 * N, 3, *SHAPE)
    rows = [w * K(basis).flatten(1).T.numpy() for w, K in ((1, u), (a, first), (b, second))]
    # the differences are NumPy's own; what is read of the library is the second derivative alone
    rows[1] = a * np.hstack([D, -np.eye(2 * N)])
    constants = [Y.ravel(), np.zeros(2 * N), np.zeros(len(rows[2]))]
    _, least = l1_minimiser(rows, constants)
    found = bl.solve(energy, x0=x, tol=1e-9).x
    assert abs(energy.value(found).item() - least) <= 1e-7 * least


def test_filling_holes_exactly_is_a_linear_program():
    """min TV(x) with x = y where y is known."""
    known = MASK.ravel() > 0
    inf = torch.inf
    seen = tensor(MASK) > 0
    box = bl.Box(torch.where(seen, tensor(Y), -inf), torch.where(seen, tensor(Y), inf))
    energy = bl.TotalVariation(isotropic=False) + box
    _, least = l1_minimiser([D[:, ~known]], [-D[:, known] @ Y.ravel()[known]])
    x = bl.solve(energy, x0=tensor(Y * MASK), tol=1e-9).x
    assert abs(bl.TotalVariation(isotropic=False).value(x).item() - least) <= 1e-7 * least


def huber_energy(x, w, delta):
    d = D @ x
    length = np.sqrt(d[:N] ** 2 + d[N:] ** 2)
    small = length <= delta
    value = np.where(small, length**2 / (2 * delta), length - delta / 2).sum()
    slope = 1 / np.maximum(length, delta)
    gradient = x - Y.ravel() + w * D.T @ (d * np.tile(slope, 2))
    return 0.5 * ((x - Y.ravel()) ** 2).sum() + w * value, gradient


def huber_tv(y, w, delta=0.1):
    """Huber's function of the length of each pixel's gradient; L21's envelope is a sum of them."""
    return bl.LeastSquares(y) + w * bl.MoreauEnvelope(bl.L21(dim=-3), delta) @ bl.Gradient()


def test_huber_tv_is_the_envelope_of_the_gradients_length():
    x = bl.argmin(huber_tv(tensor(Y), 0.3), tol=1e-12)
    expected = minimize(
        huber_energy, Y.ravel(), (0.3, 0.1), jac=True, method="BFGS", options={"gtol": 1e-9}
    )
    np.testing.assert_allclose(x.numpy().ravel(), expected.x, rtol=0, atol=1e-7)


def test_the_constrained_form_is_rof_with_the_radius_of_its_residual():
    """min TV(x) s.t. |x - y| <= r, and dx/dr = (dx/dw) / (dr/dw)."""
    theta, answer = REFERENCES["tv2d_isotropic"].instance(shape=(5, 4))
    residual = answer.x - theta["y"]
    radius = np.linalg.norm(residual)
    r = torch.tensor(radius, dtype=F64, requires_grad=True)
    x = bl.argmin(bl.TotalVariation() + bl.L2Ball(r, tensor(theta["y"])), tol=1e-10)
    np.testing.assert_allclose(x.detach()[0, 0].numpy(), answer.x, rtol=0, atol=1e-7)
    g = np.random.default_rng(1).standard_normal(answer.x.shape)
    (x * tensor(g)).sum().backward()
    rate = answer.vjp(residual / radius)["w"]  # dr/dw
    assert abs(r.grad.item() - answer.vjp(g)["w"] / rate) <= 1e-5 * abs(r.grad.item())


def two_colours(y):
    return bl.LeastSquares(torch.cat([y, 0.5 - 0.6 * y + y**2], 1))


FAMILY = {
    "huber": huber_tv,
    "holes": lambda y, w: bl.LeastSquares(tensor(MASK) * y) @ bl.Mask(tensor(MASK)[0, 0])
    + w * bl.TotalVariation() + 1e-2 * bl.LeastSquares(),
    "blur": lambda y, w: bl.LeastSquares(y) @ bl.Blur(KERNEL) + w * bl.TotalVariation(),
    "coupled": lambda y, w: two_colours(y[..., :4, :3])
    + w * bl.TotalVariation(coupled=True),
    "tv-l1": lambda y, w: bl.Absolute(y) + w * bl.TotalVariation() + 0.1 * bl.LeastSquares(),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILY)
def test_the_derivative_is_that_of_differences(name):
    w = torch.tensor(0.12, dtype=F64)
    energy = FAMILY[name]
    testing.gradients_agree(lambda y, w: bl.argmin(energy(y, w), tol=1e-11), [tensor(Y), w])


def test_coupled_channels_are_those_of_the_reference():
    theta, answer = tv2d_coupled.instance()
    y, w = tensor(theta["y"])[0], torch.tensor(theta["w"])
    x = bl.solve(bl.LeastSquares(y) + w * bl.TotalVariation(coupled=True), tol=1e-11).x
    np.testing.assert_allclose(x[0].numpy(), answer.x, rtol=0, atol=1e-6)


def test_one_coupled_channel_is_a_gray_image_and_turning_colours_turns_the_solution():
    y = torch.randn(2, 3, 6, 5, generator=torch.Generator().manual_seed(0), dtype=F64)

    def denoised(y, **kind):
        return bl.solve(bl.LeastSquares(y) + 0.3 * bl.TotalVariation(**kind), tol=1e-10).x

    torch.testing.assert_close(
        denoised(y[:, :1], coupled=True), denoised(y[:, :1]), rtol=0, atol=1e-5
    )
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).to(F64))[0]

    def turned(x):
        return torch.einsum("cd,bdhw->bchw", turn, x)

    both = denoised(turned(y), coupled=True), turned(denoised(y, coupled=True))
    torch.testing.assert_close(*both, rtol=0, atol=1e-5)


def test_coupled_needs_channels_that_are_not_the_batch():
    with pytest.raises(ValueError, match=r"coupled=True\) needs x of shape .* got \(3, 6, 5\)"):
        bl.solve(bl.LeastSquares(torch.zeros(3, 6, 5)) + bl.TotalVariation(coupled=True))
    colours = 0.1 * torch.ones(1, 3, 6, 5)
    with pytest.raises(ValueError, match=r"weight has shape \(1, 3, 6, 5\), which does not broad"):
        bl.solve(bl.LeastSquares(colours) + colours * bl.TotalVariation(coupled=True))


@pytest.mark.parametrize("isotropic", [True, False])
def test_the_multiplier_of_a_ball_accelerates(isotropic):
    rng = torch.Generator().manual_seed(0)
    y = torch.rand(2, 1, 24, 20, generator=rng, dtype=F64)
    tv = bl.TotalVariation(isotropic=isotropic)
    energy = tv + bl.L2Ball(torch.tensor([3.0, 4.0], dtype=F64).reshape(2, 1, 1, 1), y)
    found = bl.solve(energy, tol=1e-6, max_iter=1000)
    assert isinstance(found.acceleration, bl.Accelerated)
    multiplier = energy.g.multiplier(tv.operator.adjoint(found.dual[0]))
    expected = bl.solve(multiplier.reshape(2, 1, 1, 1) * bl.LeastSquares(y) + tv, tol=1e-9).x
    torch.testing.assert_close(found.x, expected, rtol=0, atol=1e-3)


def test_a_ball_that_holds_a_constant_image_is_idle():
    energy = bl.TotalVariation() + bl.L2Ball(10.0, tensor(Y))
    found = bl.solve(energy, tol=1e-6)
    assert isinstance(found.acceleration, bl.Halpern)
    assert found.value.item() < 1e-6


def test_the_balance_of_the_steps_makes_up_for_the_scale_of_the_energy():
    rng = torch.Generator().manual_seed(0)
    y = torch.rand(1, 1, 12, 10, generator=rng, dtype=F64)
    energy = (bl.LeastSquares(y) @ bl.Blur(KERNEL) + 0.02 * bl.TotalVariation()).dualized()

    def run(scale, rule=None):
        return bl.solve(
            scale * energy, acceleration=rule, tol=1e-5, max_iter=1000, on_fail="ignore"
        )

    one, small = run(1.0), run(1e-3)
    assert isinstance(small.acceleration, bl.Rebalanced)
    assert int(small.iterations) <= 2 * int(one.iterations) < 800
    assert int(run(1e-3, bl.OverRelaxation(1.9)).iterations) == 1000  # not there
    expected = bl.solve(energy, acceleration=bl.Halpern(), tol=1e-7).x
    torch.testing.assert_close(one.x, expected, rtol=0, atol=1e-3)


def test_polyhedral_energies_keep_their_restarts():
    energy = bl.Absolute(tensor(Y)) + 0.5 * bl.TotalVariation(isotropic=False)
    assert isinstance(bl.solve(energy, tol=1e-3).acceleration, bl.Halpern)


def test_a_dualized_energy_is_the_same():
    blur, y = bl.Blur(KERNEL), tensor(Y)
    energy = bl.LeastSquares(y) @ blur + 0.1 * bl.TotalVariation() + bl.NonNegative()
    other = energy.dualized()
    assert other.f is None and len(other.h) == 2
    torch.testing.assert_close(other.value(y + 1), energy.value(y + 1))
    expected = bl.solve(energy, tol=1e-9).x
    torch.testing.assert_close(bl.solve(other, tol=1e-9).x, expected, rtol=0, atol=1e-6)
