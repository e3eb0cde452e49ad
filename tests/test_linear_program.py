"""LinearProgram: sums of |K x| with x in a box, against SciPy, and its refusals."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import bilevel as bl
from bilevel.differentiation.active import Active
from bilevel.differentiation.blocks import Beside, PseudoInverse, Square
from bilevel.differentiation.vertex import Vertices

D = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def least(K, weight, lower, upper):
    """The least energy, by HiGHS: min <weight, t> with -t <= K x <= t."""
    (m, n), one = K.shape, np.eye(K.shape[0])
    A = np.block([[K, -one], [-K, -one]])
    bounds = [*zip(lower, upper, strict=True), *[(0, None)] * m]
    return linprog(np.r_[np.zeros(n), weight], A, np.zeros(2 * m), bounds=bounds).fun


CASES = {
    "square": (drawn(9, 9), 1.0),
    "tall": (drawn(20, 7), 1.0),
    "wide": (drawn(4, 9), 1.0),  # the solution is not unique
    "badly scaled": (drawn(9, 9) * torch.logspace(-3, 3, 9).to(D)[:, None], 1.0),
    "weights": (drawn(9, 9), drawn(1, 9, seed=3).abs() + 0.01),
    "dependent rows": (torch.cat([drawn(6, 6), drawn(6, 6)]), 2.0),
    "rows of zeros": (torch.cat([drawn(6, 6), torch.zeros(2, 6, dtype=D)]), 1.0),
}


@pytest.mark.parametrize("name", CASES)
def test_the_least_energy_is_that_of_highs(name):
    K, weight = CASES[name]
    centre = drawn(5, K.shape[1], seed=1)
    lower, upper = centre - drawn(5, K.shape[1], seed=2).abs() - 0.01, centre + 0.3
    energy = bl.L1(weight=weight) @ bl.Matrix(K) + bl.Box(lower, upper)
    solution = bl.solve(energy, x0=centre, solver=bl.LinearProgram(), tol=1e-9)
    w = np.broadcast_to(np.asarray(weight), (1, len(K)))[0]
    for x, value, low, high in zip(solution.x, solution.value, lower, upper, strict=True):
        assert (x >= low).all() and (x <= high).all()
        assert abs(value - least(K.numpy(), w, low.numpy(), high.numpy())) <= 1e-8 * (1 + value)
    assert (solution.gap <= 1e-9).all()
    at_zero = solution.value < 1e-9  # rounding is left, which T takes away
    assert (solution.iterations[~at_zero] <= 40).all() and not at_zero.all()


def test_several_operators_and_images():
    y = drawn(2, 1, 4, 5)
    energy = bl.L1() @ bl.Gradient(2) + 0.3 * bl.L1() @ bl.Identity() + bl.Box(y - 0.4, y + 0.4)
    fast = bl.solve(energy, x0=y, solver=bl.LinearProgram(), tol=1e-9)
    slow = bl.solve(energy, x0=y, solver=bl.PrimalDual(), tol=1e-9, max_iter=100_000)
    assert torch.allclose(fast.value, slow.value, rtol=1e-8)
    assert fast.iterations.max() < 60 and fast.x.shape == y.shape


def test_float32_and_zero_are_solved():
    x = drawn(3, 6).float()
    x[1] = 0.1  # 0 is inside: the least energy is 0
    energy = bl.L1() @ bl.Matrix(drawn(6, 6).float()) + bl.Box(x - 0.2, x + 0.2)
    solution = bl.solve(energy, x0=x, solver=bl.LinearProgram())
    assert solution.x.dtype == torch.float32 and solution.value[1] < 1e-6


@pytest.mark.parametrize(
    "diff", [None, bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth()], ids=repr
)
def test_its_derivative_is_that_of_the_vertex(diff):
    K, x = drawn(8, 8, seed=5), drawn(3, 8)

    def loss(matrix):
        energy = bl.L1() @ bl.Matrix(matrix) + bl.Box(x - 0.3, x + 0.3)
        u = bl.argmin(energy, x0=x, solver=bl.LinearProgram(), diff=diff, tol=1e-10)
        return (u**2).sum()

    leaf = K.clone().requires_grad_()
    loss(leaf).backward()
    direction, step = drawn(8, 8, seed=6), 1e-6
    difference = (loss(K + step * direction) - loss(K - step * direction)) / (2 * step)
    assert leaf.grad is not None
    assert abs((leaf.grad * direction).sum() - difference) < 1e-5 * abs(difference)


def test_at_a_vertex_no_singular_values_are_asked_for(monkeypatch):
    def refused(*_, **__):
        raise AssertionError("They cost more than the solution and its derivative together.")

    monkeypatch.setattr(torch.linalg, "svd", refused)
    K, x = drawn(8, 8, seed=5).requires_grad_(), drawn(3, 8)
    energy = bl.L1() @ bl.Matrix(K) + bl.Box(x - 0.3, x + 0.3)
    u = bl.argmin(energy, x0=x, solver=bl.LinearProgram(), diff=bl.PartlySmooth(), tol=1e-10)
    u.square().sum().backward()
    assert K.grad is not None and bool(K.grad.any())


def several():  # a matrix for each of three samples
    K = drawn(3, 7, 6, seed=2)
    K[2, 1:4] = K[2, 0]  # three times the same row: four of them 0, in one direction
    return K, drawn(3, 6), torch.tensor(0.3), {Square: [0, 1], PseudoInverse: [2]}


def mostly_free():  # one matrix; the last sample has 0 inside its box
    K, x, radius = drawn(8, 8, seed=5), drawn(12, 8), torch.full((12, 1), 1.5)
    radius[0], radius[-1] = 0.3, 9.0
    return K, x, radius, {Beside: list(range(12))}


@pytest.mark.parametrize("case", [several, mostly_free], ids=lambda case: case.__name__)
def test_vertices_are_solved_by_factors_and_other_samples_by_pseudo_inverses(case):
    K, x, radius, expected = case()
    energy = bl.L1() @ bl.Matrix(K) + bl.Box(x - radius, x + radius)
    solution = bl.solve(energy, x0=x, solver=bl.LinearProgram(), tol=1e-12)
    active = Active(energy, (solution.x, *solution.dual))
    (_, zeros), free = active.composed[0], active.own.support
    vertices = Vertices(K.reshape(-1, *K.shape[-2:]), free, ~zeros.support)
    assert {type(C): sorted(i.tolist()) for i, C in vertices.parts} == expected
    for transposed in (False, True):
        b = drawn(*x.shape, seed=7), drawn(len(x), K.shape[-2], seed=8)
        both = vertices.solve(b, transposed), active.solve(b, transposed)
        torch.testing.assert_close(*both, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "energy, match",
    [
        (bl.L1() @ bl.Gradient(1) + bl.LeastSquares(torch.zeros(1, 3)), "needs L1"),
        (bl.L2() @ bl.Gradient(1) + bl.Box(0.0, 1.0), "needs L1"),
        (bl.L1() @ bl.Gradient(1) + bl.NonNegative(), "needs L1"),
    ],
)
def test_other_energies_are_refused(energy, match):
    with pytest.raises(TypeError, match=match):
        bl.solve(energy, x0=torch.zeros(1, 3), solver=bl.LinearProgram())


def test_an_empty_batch_and_a_batch_of_one():
    K = drawn(4, 4)
    for x in (drawn(0, 4), drawn(1, 4)):
        leaf = x.clone().requires_grad_()
        energy = bl.L1() @ bl.Matrix(K) + bl.Box(leaf - 0.3, leaf + 0.3)
        u = bl.argmin(energy, x0=x, solver=bl.LinearProgram())
        u.sum().backward()
        assert u.shape == x.shape and leaf.grad is not None and leaf.grad.isfinite().all()


def test_a_batch_gives_what_its_samples_give_alone():
    K, x = drawn(4, 4, 4), 5 * drawn(4, 4, seed=1)  # a matrix each
    box = bl.Box(x - 0.3, x + 0.3)
    whole = bl.solve(bl.L1() @ bl.Matrix(K) + box, x0=x, solver=bl.LinearProgram(), tol=1e-10).x
    for matrix, row, found in zip(K, x, whole, strict=True):
        x0 = row[None]
        alone = bl.L1() @ bl.Matrix(matrix) + bl.Box(x0 - 0.3, x0 + 0.3)
        u = bl.solve(alone, x0=x0, solver=bl.LinearProgram(), tol=1e-10).x[0]
        assert torch.allclose(u, found, atol=1e-8)


@pytest.mark.parametrize("box", [bl.Box(0.0, torch.inf), bl.Box(1.0, 1.0)])
def test_bounds_must_be_finite_and_apart(box):
    with pytest.raises(ValueError, match="finite bounds with lower < upper"):
        bl.solve(bl.L1() @ bl.Gradient(1) + box, x0=torch.zeros(1, 3), solver=bl.LinearProgram())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_first_order_steps_do_not_add_up_rounding(dtype):
    k = torch.arange(16, dtype=torch.float64)
    K = (torch.cos(torch.pi * (k + 0.5) * k[:, None] / 16) * (2 / 16) ** 0.5).to(dtype)
    K[0] /= 2**0.5
    bump = [-1, -1, 1, 1, 3, 3, 3, 3, 3, 3, 3, 1, 1, 1, -1, -1]
    x = torch.tensor([bump], dtype=dtype) / 16
    energy = bl.L1() @ bl.Matrix(K) + bl.Box(x - 1 / 16, x + 1 / 16)
    u = bl.solve(energy, x0=x, solver=bl.PrimalDual(), max_iter=5000)
    best = bl.solve(energy, x0=x, solver=bl.LinearProgram())
    torch.testing.assert_close(energy.value(u.x), energy.value(best.x), rtol=1e-4, atol=0)
