"""Solvers: they agree with the references and with each other, and a batch is its samples."""

import numpy as np
import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.fixpoint import Fixpoint
from problems import BY_NAME, EXAMPLES
from registry import ACCELERATIONS

every_solver = pytest.mark.parametrize(
    "example, solver",
    [(example, solver) for example in EXAMPLES for solver in example.solvers],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
every = pytest.mark.parametrize("example", EXAMPLES, ids=str)


def error(x, answers):
    """The largest relative error over the batch."""
    pairs = [(part.detach().double().numpy(), a.x) for part, a in zip(x, answers, strict=True)]
    return max(np.linalg.norm(x - ref) / np.linalg.norm(ref) for x, ref in pairs)


def requiring_grad(theta):
    return {k: v.clone().requires_grad_() for k, v in theta.items()}


@every_solver
def test_the_answer_is_the_reference(example, solver):
    """A gap of 1e-13 leaves x within sqrt(1e-13 P / mu): up to 1e-5 here."""
    theta, answers = example.theta(batch=3)
    energy = example.energy(theta)
    solution = bl.solve(energy, solver=solver(), tol=1e-13)
    assert solution.converged.all()
    assert solution.value.shape == solution.residual.shape == (3,)
    torch.testing.assert_close(solution.value, energy.value(solution.x))
    assert error(solution.x, answers) <= 1e-5


@every_solver
def test_a_solution_to_be_differentiated_is_a_fixed_point(example, solver):
    """With a gradient asked for the residual is small as well as the gap: 1e-11 times the
    condition number, up to 1e3 here."""
    theta, answers = example.theta(batch=3)
    theta, report = requiring_grad(theta), bl.Certificate()
    x = bl.argmin(example.energy(theta), solver=solver(), tol=1e-11, report=report)
    assert (report.residual <= 1e-11).all() and report.converged.all()
    assert error(x, answers) <= 1e-8


@every_solver
def test_z_is_T_of_z(example, solver):
    theta, _ = example.theta(batch=2)
    energy = example.energy(theta)
    solution = bl.solve(energy, solver=solver(), tol=1e-14)
    testing.fixed_point(energy, solution, tol=1e-5)


@every
def test_diagonal_preconditioning(example):
    theta, answers = example.theta(batch=2)
    energy = example.energy(theta)
    solution = bl.solve(energy, solver=bl.PrimalDual(preconditioned=True), tol=1e-12)
    assert error(solution.x, answers) <= 2e-5
    testing.fixed_point(energy, solution, tol=1e-4)


@pytest.mark.parametrize("example", [e for e in EXAMPLES if len(e.solvers) > 1], ids=str)
def test_solvers_agree(example):
    theta, _ = example.theta(seed=7, batch=2)
    solvers = [solver() for solver in example.solvers]
    testing.solvers_agree(example.energy(theta), solvers, rtol=2e-5, tol=1e-13)


@pytest.mark.parametrize(
    "acceleration, solver, name",
    [(a, s, name) for a, s, names in ACCELERATIONS for name in names],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_every_acceleration_reaches_the_answer(acceleration, solver, name):
    theta, answers = BY_NAME[name].theta(batch=2)
    solution = bl.solve(
        BY_NAME[name].energy(theta),
        solver=solver(),
        acceleration=acceleration,
        tol=1e-10,
        max_iter=100_000,
    )
    assert solution.acceleration == acceleration
    assert error(solution.x, answers) <= 1e-4  # sqrt of the gap


@every
def test_a_batch_is_its_samples(example):
    """Samples need different numbers of steps, so that the batch shrinks on the way."""
    theta, _ = example.theta(batch=4)

    def energy(index):
        return example.energy({k: v[index] for k, v in theta.items()})

    # the last bit of a vectorised exp, and of a batched SVD in the Newton finish
    rounds = example.name in ("logistic", "tv2d_anisotropic", "tv2d_isotropic")
    # and matrix products in other blocks in an interior point
    blocks = type(bl.solve(energy(torch.arange(4))).solver) is bl.InteriorPoint
    testing.batch_is_alone(energy, 4, ulp=64 if blocks else 8 if rounds else 0, tol=1e-9)


def test_the_batch_shrinks():
    theta, _ = BY_NAME["lasso"].theta(batch=4)
    iterations = bl.solve(BY_NAME["lasso"].energy(theta), tol=1e-9).iterations
    assert len(iterations.unique()) > 1


def quartic(center, seen=None):
    def energy(x):
        if seen is not None:
            seen.append(len(x))
        return ((x - center).square() + 0.25 * (x - center).pow(4)).sum(1)

    return bl.Potential(energy)


def test_samples_of_a_closure_are_frozen():
    """A closure cannot be indexed: the batch keeps its size, finished samples their answer."""
    center = torch.tensor([[0.0, 0.0], [3.0, 1.0], [300.0, -200.0]], dtype=torch.float64)
    seen = []

    def energy(index):
        return quartic(center[index], seen) + 0.1 * bl.LeastSquares(0 * center[index])

    solution = bl.solve(energy(torch.arange(3)), tol=1e-9)
    assert set(seen) == {3}
    assert len(solution.iterations.unique()) > 1
    testing.batch_is_alone(energy, 3, tol=1e-9)


@pytest.mark.parametrize("tol", [1e-3, 1e-6])
def test_a_sample_takes_in_company_the_steps_that_it_takes_alone(tol):
    y = torch.rand(6, 1, 12, 12, dtype=torch.float64)
    weights = torch.logspace(-2.5, 0, 6, dtype=torch.float64)[:, None, None, None]
    together = bl.solve(bl.LeastSquares(y) + weights * bl.TotalVariation(), tol=tol)
    assert len(set(together.iterations.tolist())) > 2
    for i in range(6):
        alone = bl.solve(
            bl.LeastSquares(y[i : i + 1]) + weights[i : i + 1] * bl.TotalVariation(), tol=tol
        )
        assert torch.equal(alone.iterations, together.iterations[i : i + 1])
        assert torch.equal(alone.x, together.x[i : i + 1])


@pytest.mark.parametrize("tol", [1e-4, 1e-5, 1e-6])
def test_a_gap_is_looked_at_soon_after_it_is_small_enough(tol):
    y = torch.rand(1, 1, 40, 40, dtype=torch.float64)
    energy = bl.LeastSquares(y) + 0.1 * bl.TotalVariation(isotropic=False)
    steps = bl.solve(energy, tol=tol).iterations.item()
    assert not bl.solve(energy, tol=tol, max_iter=int(steps / 1.1), on_fail="ignore").converged


@pytest.mark.parametrize("first", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("weight", [1e-2, 1.0, 1e2])
def test_the_wider_steps_of_accelerated_converge_where_the_operator_is_largest(weight, first):
    """A chessboard, on which |Dx| is nearly |D| |x|, with steps beyond the bound of theta = 1."""
    i = torch.arange(24)
    y = ((i + i[:, None]) % 2).double()[None, None]
    energy = bl.LeastSquares(y) + weight * bl.TotalVariation(isotropic=False)
    rule = bl.Accelerated(first=first)
    solver = bl.PrimalDual().prepare(energy, y)
    tau, sigma, _ = rule.start(Fixpoint(energy, solver), solver.start(energy, y))
    assert 1.25 < float(tau * sigma) * bl.Gradient().norm(y) ** 2 < 4 / 3
    assert bl.solve(energy, acceleration=rule, tol=1e-5).converged


def test_primal_dual_measures_operators_together_where_it_measures_at_all():
    u, v = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
    x, norm = torch.randn(2, 3, 8, 8), bl.L21(dim=1)
    energy = norm @ (bl.Gradient() @ u - v) + norm @ bl.SymmetrizedGradient() @ v
    energy = energy + bl.L1() @ u
    columns = torch.eye(x[0].numel()).reshape(-1, *x.shape[1:])
    images = torch.cat([h.operator(columns).flatten(1) for h in energy.h], 1)
    square = torch.linalg.matrix_norm(images, 2) ** 2
    tau, sigma = bl.PrimalDual().prepare(energy, x).steps
    assert 0.9 < tau * sigma * square < 1
    assert 0.95 * sum(h.operator.norm(x) ** 2 for h in energy.h) > square  # a bound, and no more


def test_accelerated_keeps_to_the_bound_beside_a_smooth_term():
    y = torch.rand(1, 1, 6, 5, dtype=torch.float64)
    energy = bl.LeastSquares(y) @ bl.Blur(torch.ones(3, 3) / 9) + 0.1 * bl.TotalVariation()
    energy = energy + 0.1 * bl.ElasticNet(ratio=0.5)
    solver = bl.PrimalDual().prepare(energy, y)
    tau, sigma, _ = bl.Accelerated().start(Fixpoint(energy, solver), solver.start(energy, y))
    assert float(tau * sigma) * bl.Gradient().norm(y) ** 2 < 1


def test_per_sample_weights_are_samples_weights():
    y = torch.randn(3, 1, 6, 5, dtype=torch.float64)
    weights = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    together = bl.solve(bl.LeastSquares(y) + weights[:, None, None, None] * bl.TotalVariation())
    for i, weight in enumerate(weights):
        alone = bl.solve(bl.LeastSquares(y[i : i + 1]) + float(weight) * bl.TotalVariation())
        torch.testing.assert_close(together.x[i], alone.x[0], rtol=1e-7, atol=1e-7)


def test_channels_are_separate_images():
    y = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    weight = torch.rand(3, 1, 1, dtype=torch.float64)
    x = bl.solve(bl.LeastSquares(y) + weight[None] * bl.TotalVariation(), tol=1e-13).x
    for c in range(3):
        alone = bl.LeastSquares(y[:, c : c + 1]) + weight[c] * bl.TotalVariation()
        torch.testing.assert_close(x[:, c : c + 1], bl.solve(alone, tol=1e-13).x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dims, isotropic", [(1, True), (2, True), (2, False), (3, True)])
def test_total_variation_is_a_norm_of_the_gradient(dims, isotropic):
    y = torch.randn(2, 1, *[4] * dims, dtype=torch.float64)
    norm = bl.L21(dim=-dims - 1) if isotropic and dims > 1 else bl.L1()
    energies = [
        bl.LeastSquares(y) + 0.2 * bl.TotalVariation(dims=dims, isotropic=isotropic),
        bl.LeastSquares(y) + 0.2 * norm @ bl.Gradient(dims),
    ]
    a, b = (bl.solve(energy, tol=1e-10) for energy in energies)
    # by machine code, in one dim its prox, and by the differences: both to a gap of 1e-10
    torch.testing.assert_close(a.x, b.x, rtol=0, atol=1e-4)
    torch.testing.assert_close(a.value, b.value)


def test_the_second_term_with_a_prox_is_split_off():
    """min 1/2 |x - y|^2 + w |x|_1 in a box is clip(soft(y, w)), coordinate by coordinate."""
    y = 2 * torch.randn(3, 8, dtype=torch.float64)
    soft = y - y.clamp(-0.5, 0.5)
    for terms in ((0.5 * bl.L1(), bl.Box(-1.0, 0.7)), (bl.Box(-1.0, 0.7), 0.5 * bl.L1())):
        x = bl.solve(bl.LeastSquares(y) + terms[0] + terms[1], tol=1e-13).x
        torch.testing.assert_close(x, soft.clamp(-1, 0.7), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        lambda y: bl.Huber(0.3, y),
        lambda y: bl.LeastSquares(y) @ bl.Matrix(torch.eye(9, dtype=y.dtype).roll(1, 0) + 0.5),
        lambda y: bl.Logistic(y.sign()) + 0.1 * bl.LeastSquares(),
        lambda y: bl.LeastSquares(y) + bl.Potential(lambda x: x.cosh().sum(1), constant=100.0),
    ],
    ids=["prox", "gradient", "sum", "closure"],
)
def test_smooth_terms_beside_composed_ones(data):
    """Condat-Vu, or the prox of the only smooth term: the optimality conditions hold."""
    y = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    energy = bl.Problem(()) + data(y) + 0.2 * bl.TotalVariation(dims=1) + bl.NonNegative()
    solution = bl.solve(energy, tol=1e-9)
    for part in energy.kkt(solution.x, solution.dual):
        assert part.abs().max() <= 1e-4


def test_the_same_numbers_twice():
    theta, _ = BY_NAME["tv2d_isotropic"].theta(batch=2)
    a, b = (bl.solve(BY_NAME["tv2d_isotropic"].energy(theta)) for _ in range(2))
    assert torch.equal(a.x, b.x) and torch.equal(a.iterations, b.iterations)
    torch.manual_seed(123)  # and the random numbers of others are left alone
    state = torch.get_rng_state()
    bl.solve(BY_NAME["lasso"].energy(BY_NAME["lasso"].theta()[0]))
    assert torch.equal(torch.get_rng_state(), state)


def test_laws_that_are_broken_say_so():
    y = torch.randn(2, 4, dtype=torch.float64)
    energy = bl.LeastSquares(y) + bl.L1()
    solution = bl.solve(energy + bl.Box(-0.1, 0.1), solver=bl.PrimalDual())
    with pytest.raises(AssertionError, match="PrimalDual: fixed_point is broken in . of 2 cases"):
        testing.fixed_point(energy + bl.NonNegative(), solution)
    with pytest.raises(AssertionError, match=r"batch_is_alone \(sample 1\) is broken"):
        testing.batch_is_alone(lambda i: bl.LeastSquares(y[: len(i)]), 2)
    with pytest.raises(AssertionError, match=r"Shifted: solvers_agree \(with ForwardBackward\)"):
        testing.solvers_agree(energy, [bl.ForwardBackward(), Shifted()])


class Shifted(bl.ForwardBackward):
    def primal(self, problem, z):
        return z[0] + 0.01
