"""Kernels do what the torch steps do, on any number of threads."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import bilevel as bl
from bilevel.fixpoint import Fixpoint
from bilevel.kernels import fields, sequence
from bilevel.kernels.rof import ROF

SHAPES = [(2, 9, 7), (1, 3, 8, 5), (2, 1, 1, 6), (1, 1, 6, 1), (1, 1, 1, 1), (1, 200, 33)]


def rof(
    shape, dtype=torch.float64, isotropic=True, weight=0.2, mu=1.0, seed=0, coupled=False, dims=2
):
    """(energy, fixpoint, a state near the start) of a noisy image."""
    rng = torch.Generator().manual_seed(seed)
    y = torch.rand(shape, generator=rng, dtype=torch.float64).to(dtype)
    energy = mu * bl.LeastSquares(y) + weight * bl.TotalVariation(dims, isotropic, coupled)
    solver = bl.PrimalDual().prepare(energy, y)
    z = solver.start(energy, y)
    z = tuple(part + 0.3 * torch.randn(part.shape, generator=rng).to(dtype) for part in z)
    for axis in range(-dims, 0):  # a dual starts at 0, and the differences across the far edges
        z[2].select(-dims - 1, axis).select(axis, -1).fill_(0)  # leave it there
    return energy, Fixpoint(energy, solver), z


def covered(fixpoint, z) -> ROF:
    with torch.no_grad():
        kernel = fixpoint.kernel(z)
    assert kernel is not None
    return kernel


def copy(z):
    """What sweeps may overwrite."""
    return tuple(part.clone() for part in z)


def agree(got, expected):
    """Up to rounding: sums in another order, products contracted."""
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=64 * torch.finfo(b.dtype).eps)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rof_makes_the_steps_of_the_solver(shape, dtype, isotropic):
    energy, fixpoint, z = rof(shape, dtype, isotropic)
    kernel, solver = covered(fixpoint, z), fixpoint.solver
    agree(kernel.T(z), solver.step(energy, z))
    steps = ([1.0, 0.7, 0.5], [0.1, 0.15, 0.2], [0.9, 1.0, 0.8])
    expected = z
    for step in zip(*steps, strict=True):
        expected = solver.sweep(energy, expected, *step)
    agree(kernel.sweeps(copy(z), *steps), expected)


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rof_has_the_gap_of_the_problem(shape, isotropic):
    energy, fixpoint, z = rof(shape, isotropic=isotropic)
    z = covered(fixpoint, z).T(z)  # its dual is feasible
    x, _, y = z
    expected = energy.gap(x, (y,), 1e-3)
    torch.testing.assert_close(covered(fixpoint, z).gap(z, 1e-3), expected)


def test_rof_takes_a_weight_and_steps_for_each_sample():
    weight = torch.tensor([0.1, 0.0, 3.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    mu = torch.tensor([1.0, 0.5, 2.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    energy, fixpoint, z = rof((3, 2, 5, 6), weight=weight, mu=mu)
    kernel = covered(fixpoint, z)
    agree(kernel.T(z), fixpoint.solver.step(energy, z))
    tau = torch.tensor([1.0, 2.0, 0.3], dtype=torch.float64)
    expected = fixpoint.solver.sweep(energy, z, tau, 0.1 / tau, 1.0)
    agree(kernel.sweeps(copy(z), [tau], [0.1 / tau], [1.0]), expected)


def positive(*shape, dtype=torch.float64):
    weight = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (weight * (weight > 0.1)).to(dtype)  # some of them 0


MAPS = [
    (9, 7),
    (7,),
    (1, 9, 7),
    (2, 3, 9, 7),
    (2, 1, 9, 7),
    (2, 1, 1, 7),
    (2, 3, 1, 1),
    (2, 1, 9, 1),
]


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("shape", MAPS, ids=str)
def test_rof_takes_a_weight_for_each_pixel(shape, isotropic):
    energy, fixpoint, z = rof((2, 3, 9, 7), isotropic=isotropic, weight=positive(*shape))
    held_to_the_solver(energy, fixpoint, z)


@pytest.mark.parametrize("shape", MAPS[:6], ids=str)
def test_rof_takes_a_data_weight_for_each_pixel(shape):
    held_to_the_solver(*rof((2, 3, 9, 7), mu=0.1 + positive(*shape)))
    if shape != MAPS[3]:  # one for each of coupled channels
        held_to_the_solver(*rof((2, 3, 9, 7), mu=0.1 + positive(*shape), coupled=True))


VOLUMES = [(2, 5, 4, 6), (1, 2, 3, 4, 5), (1, 1, 6, 5), (1, 4, 1, 5), (1, 4, 5, 1), (1, 1, 1, 1)]


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("shape", VOLUMES, ids=str)
def test_rof_takes_volumes(shape, isotropic):
    held_to_the_solver(*rof(shape, isotropic=isotropic, dims=3))
    maps = positive(*shape[-3:])
    held_to_the_solver(*rof(shape, isotropic=isotropic, weight=maps, mu=0.1 + maps, dims=3))


@pytest.mark.parametrize("dims, shape", [(1, (2, 3, 9)), (3, (2, 3, 4, 5, 6))], ids=str)
def test_rof_couples_channels_of_signals_and_volumes(dims, shape):
    held_to_the_solver(*rof(shape, torch.float32, coupled=True, dims=dims))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), *MAPS[:3], *MAPS[4:6], MAPS[7]], ids=str)
def test_rof_couples_channels(shape, dtype):
    weight = positive(*shape, dtype=dtype)
    held_to_the_solver(*rof((2, 3, 9, 7), dtype, weight=weight, coupled=True))
    held_to_the_solver(*rof((2, 1, 9, 7), dtype, weight=weight, coupled=True))


def held_to_the_solver(energy, fixpoint, z):
    kernel, solver = covered(fixpoint, z), fixpoint.solver
    t = kernel.T(z)
    agree(t, solver.step(energy, z))
    swept = solver.sweep(energy, solver.sweep(energy, z, 0.7, 0.1, 0.9), 0.6, 0.12, 1.0)
    agree(kernel.sweeps(copy(z), [0.7, 0.6], [0.1, 0.12], [0.9, 1.0]), swept)
    expected = energy.gap(t[0], (t[2],), 1e-3)
    rtol = 100 * torch.finfo(expected.dtype).eps
    torch.testing.assert_close(kernel.gap(t, 1e-3), expected, rtol=rtol, atol=rtol)


@pytest.mark.parametrize(
    "shape, coupled, dims",
    [
        ((3, 1, 300, 40), False, 2),
        ((3, 3, 300, 40), True, 2),
        ((1, 1, 300, 700), False, 2),
        ((1, 3, 300, 200), True, 2),
        ((1, 90, 40, 60), False, 3),
    ],
)
def test_rof_does_not_depend_on_the_number_of_threads(shape, coupled, dims):
    weight = positive(*shape[-dims:], dtype=torch.float32)
    _, fixpoint, z = rof(shape, torch.float32, weight=weight, coupled=coupled, dims=dims)
    kernel = covered(fixpoint, z)
    steps = [[0.5] * 20, [0.15] * 20, [0.9] * 20]
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            swept = kernel.sweeps(copy(z), *steps)
            answers.append((*swept, kernel.gap(swept, 0.0)))
    finally:
        torch.set_num_threads(before)
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            assert torch.equal(a, b)


class Large(TorchDispatchMode):
    """Notes the operations that torch shares among its threads."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        touched = [t for t in (*args, result) if isinstance(t, torch.Tensor)]
        idle = operation.is_view or "empty" in str(operation) or "new_" in str(operation)
        if not idle and max((t.numel() for t in touched), default=0) > 2**15:
            self.seen.append(operation)
        return result


@pytest.mark.parametrize("isotropic", [True, False])
def test_a_run_of_the_kernel_leaves_torchs_threads_asleep(isotropic):
    """They would keep their cores from the kernel's threads for 3 ms."""
    energy, *_ = rof((1, 1, 200, 200), torch.float32, isotropic)
    with Large() as large:
        solution = bl.solve(energy, tol=1e-4)
    assert solution.converged and not large.seen
    with Large() as large:
        solution.x.clone()
    assert large.seen


def test_rof_leaves_its_input_and_passes_nan_on():
    _, fixpoint, z = rof((1, 1, 8, 9))
    z[0][0, 0, 3, 3] = torch.nan
    kept = tuple(part.clone() for part in z)
    x = covered(fixpoint, z).T(z)[0]
    assert x[0, 0, 3, 3].isnan()
    for a, b in zip(z, kept, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)


def test_rof_forgets_the_energy_of_what_it_overwrites():
    _, fixpoint, z = rof((1, 1, 8, 9))
    kernel = covered(fixpoint, z)
    with torch.no_grad():
        z = kernel.T(z)
        before = kernel.value(z)
        swept = kernel.sweeps(z, [0.7], [0.1], [1.0])
        assert z[0].data_ptr() == swept[0].data_ptr()
        assert kernel.value(z) == kernel.value(swept) < before


def test_a_solve_is_the_same_with_and_without_a_kernel(monkeypatch):
    energy, *_ = rof((2, 1, 40, 30))
    compiled = bl.solve(energy, tol=1e-5)
    monkeypatch.setattr(bl.PrimalDual, "kernel", lambda *_: None)
    reference = bl.solve(energy, tol=1e-5)
    assert torch.equal(compiled.iterations, reference.iterations)
    torch.testing.assert_close(compiled.x, reference.x, rtol=0, atol=1e-12)


Y = torch.rand(2, 1, 6, 5, dtype=torch.float64)
COLOUR = Y.repeat(1, 2, 1, 1)
PIXELS = torch.rand(6, 5, dtype=torch.float64)


@pytest.mark.parametrize(
    "energy",
    [
        (PIXELS > 0.5) * bl.LeastSquares(Y) + bl.TotalVariation(),
        bl.LeastSquares(Y) + bl.TotalVariation(isotropic=False, coupled=True),
        torch.ones(2, 2, 1, 1).cumsum(1) * bl.LeastSquares(COLOUR)
        + bl.TotalVariation(coupled=True),
        bl.Huber(0.1, Y) + bl.TotalVariation(),
        bl.LeastSquares(Y) + bl.TotalVariation() + bl.NonNegative(),
        bl.LeastSquares(Y) + 0.1 * bl.TotalVariation() + 0.1 * bl.TotalVariation(),
    ],
)
def test_rof_covers_no_other_energy(energy):
    y = energy.guess()
    solver = bl.PrimalDual().prepare(energy, y)
    assert solver.kernel(energy, solver.start(energy, y)) is None


def test_a_kernel_never_records():
    energy, fixpoint, z = rof((1, 1, 6, 5))
    with torch.enable_grad():
        assert fixpoint.kernel(z) is None


HALVES = [
    (2, (2, 3, 9, 7), False),
    (3, (2, 3, 4, 5), False),
    (1, (2, 3, 9), True),
    (2, (2, 3, 9, 7), True),
    (3, (2, 3, 4, 5, 6), True),
]


@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("dims, shape, coupled", HALVES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dual_half_is_that_of_the_operator_and_the_norm(dims, shape, coupled, dtype, isotropic):
    energy, _, (x, _, y) = rof(shape, dtype, isotropic, coupled=coupled, dims=dims)
    (tv,), step = energy.h, torch.tensor([0.3, 2.0], dtype=dtype)
    recorded = tv.ascend(y, x.clone().requires_grad_(), step)
    assert recorded.requires_grad, "recorded by torch operations"
    with torch.no_grad():
        got = tv.ascend(y, x, step)
        agree([got, tv.pull(y + 1)], [recorded, tv.operator.adjoint(y + 1)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 70, 41), (1, 3, 2, 500), (600, 2, 1), (1, 1, 1500)], ids=str)
def test_fields_are_those_of_the_recorded_operators(shape, dtype):
    """The recorded ones are torch's; a kernel takes what is large enough."""
    rng = torch.Generator().manual_seed(0)
    *lead, rows, columns = shape

    def random(*dims):
        return torch.randn(*lead, *dims, rows, columns, generator=rng, dtype=dtype)

    D, E, norm = bl.Gradient(), bl.SymmetrizedGradient(), bl.L21(dim=-3, weight=0.7)
    maps = [
        (D, random()),
        (D.adjoint, random(2)),
        (E, random(2)),
        (E.adjoint, random(3)),
        (lambda y: norm.prox_conjugate(y, 1.0), random(3)),
        (lambda y: bl.L21(dim=1).prox_conjugate(y.transpose(-1, -2), 1.0), random(3)),
    ]
    for function, x in maps:
        with torch.no_grad():
            assert fields.covered(x)
            got = function(x)
        agree([got], [function(x)])


def test_fields_leave_what_torch_func_traces_and_what_is_no_number():
    x = torch.randn(2, 1, 40, 40)
    x[0, 0, 3, 3] = x[1, 0, -1, -1] = torch.nan
    D = bl.Gradient()
    with torch.no_grad():
        each = torch.func.vmap(lambda image: D(image[None])[0])(x)
        torch.testing.assert_close(D(x), each, equal_nan=True)
        assert D(x).isnan().sum() == 4 + 2
        E = bl.SymmetrizedGradient()
        for function in (E, D.adjoint, lambda w: E.adjoint(E(w))):
            with torch.enable_grad():
                expected = function(D(x))
            assert torch.equal(function(D(x)).isnan(), expected.isnan())
        x = x.nan_to_num()
        assert bl.L21(dim=-3, weight=0.0).prox_conjugate(D(x[1:]), 1.0).count_nonzero() == 0


def test_adjoints_are_added_up_in_place():
    u, v = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
    x, y = torch.randn(2, 3, 6, 5), torch.randn(2, 2, 6, 5)
    data = bl.Absolute(x[:, 0]) @ u
    energy = data + bl.L21(dim=1) @ (bl.Gradient() @ u - 2.0 * v) + bl.L1() + bl.L1()
    duals = x[:, 0].clone(), y, x.clone()
    expected = energy.pull(x, duals)  # recorded: term by term
    with torch.no_grad():
        torch.testing.assert_close(energy.pull(x, duals), expected)
    torch.testing.assert_close(duals, (x[:, 0], y, x))  # left as they were
    with torch.no_grad():
        total = bl.Gradient() + bl.Gradient()
        torch.testing.assert_close(total.adjoint(y), 2 * bl.Gradient().adjoint(y))
        both = bl.Identity() + -2.0 * bl.Identity()
        torch.testing.assert_close(both.adjoint(y), -y)
    torch.testing.assert_close(duals, (x[:, 0], y, x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 700), (1, 2, 90, 71), (2, 1, 300, 200)], ids=str)
def test_an_anchored_step_is_the_formula_on_any_number_of_threads(shape, dtype):
    rng = torch.Generator().manual_seed(0)
    t, z, anchor = torch.randn(3, *shape, generator=rng, dtype=dtype)
    weights = torch.rand(3, shape[0], generator=rng, dtype=dtype)
    a, b, c = (w.reshape(-1, *[1] * (len(shape) - 1)) for w in weights)
    expected = a * t + b * z + c * anchor, (t - z).square().flatten(1).sum(1)
    before, answers = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                answers.append(sequence.anchored(weights, t, z, anchor, own=False))
                own, version = z.clone(), z._version
                new, squares = sequence.anchored(weights, t, own, anchor, own=True)
            assert new is own and own._version > version  # what is remembered of it is void
            answers.append((new, squares))
    finally:
        torch.set_num_threads(before)
    agree(answers[0][:1], expected[:1])
    torch.testing.assert_close(answers[0][1], expected[1])
    for answer in answers[1:]:
        assert torch.equal(answer[0], answers[0][0]) and torch.equal(answer[1], answers[0][1])


def test_halpern_steps_with_and_without_the_kernel_agree(monkeypatch):
    y = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = y.new_tensor([0.3, 0.8]).reshape(2, 1, 1, 1)
    energy = bl.Absolute(y) + weight * bl.TotalVariation()
    second = bl.Absolute(y[1:]) + 0.8 * bl.TotalVariation()
    options = {"tol": 1e-5, "acceleration": bl.Halpern(), "max_iter": 150, "on_fail": "ignore"}
    fast, alone = bl.solve(energy, **options), bl.solve(second, **options)
    monkeypatch.setattr(sequence, "anchored", lambda *_, **__: None)
    slow = bl.solve(energy, **options)
    torch.testing.assert_close(fast.x, slow.x, rtol=0, atol=1e-9)
    torch.testing.assert_close(fast.x[1:], alone.x, rtol=0, atol=1e-9)
