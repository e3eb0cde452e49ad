"""Douglas-Rachford, Davis-Yin and ADMM beyond the laws: what they need, and their steps."""

import pytest
import torch

import bilevel as bl
from bilevel import testing

D = torch.float64
LS, Box, L1 = bl.LeastSquares, bl.Box, bl.L1
TV1 = bl.L1() @ bl.Gradient(dims=1)  # a composed term: TotalVariation(1) has a prox


def drawn(*shape, seed=0):
    return torch.randn(shape, dtype=D, generator=torch.Generator().manual_seed(seed))


y, A, K = drawn(3, 8), drawn(6, 8, seed=1), drawn(5, 8, seed=2)


@pytest.mark.parametrize("first", [True, False])
def test_a_norm_and_a_set_in_either_order(first):
    """x is a point of the set, so that the gap is known before the end."""
    terms = (0.3 * L1(), Box(y - 0.1, y + 0.1))
    energy = bl.Problem(terms if first else terms[::-1])
    solution = bl.solve(energy, solver=bl.DouglasRachford(), tol=1e-12)
    expected = (y - y.sign() * y.abs().clamp(max=0.1)).clamp(y - 0.1, y + 0.1)
    torch.testing.assert_close(solution.x, expected)
    assert (solution.gap <= 1e-12).all()
    testing.fixed_point(energy, solution)


def test_davis_yin_in_either_order():
    f = LS(drawn(3, 6)) @ bl.Matrix(A)
    for energy in (f + 0.2 * L1() + Box(-0.3, 0.4), f + Box(-0.3, 0.4) + 0.2 * L1()):
        testing.solvers_agree(energy, [bl.DavisYin(), bl.PrimalDual()], tol=1e-12)
        testing.fixed_point(energy, bl.solve(energy, solver=bl.DavisYin(), tol=1e-13))


@pytest.mark.parametrize(
    "energy, exact",
    [
        (LS(y) + 0.3 * TV1, "Cosine"),
        (LS(drawn(3, 6)) @ bl.Matrix(A) + 0.3 * L1() @ bl.Matrix(K) + 0.1 * LS(), "Dense"),
        (LS(y) + 0.3 * L1() @ bl.Matrix(K) + bl.NonNegative(), None),
        (bl.Huber(0.1, y) + 0.3 * L1() @ bl.Matrix(K) + 0.1 * LS(), None),
        (0.2 * L1() @ bl.Matrix(K) + 0.5 * L1() @ bl.Gradient(1) + LS(y), "Dense"),
        (LS(drawn(2, 1, 5, 4)) + 0.1 * bl.TotalVariation(), "Cosine"),
    ],
    ids=["cosine", "dense", "a prox beside", "not quadratic", "two", "image"],
)
def test_admm_agrees_with_primal_dual(energy, exact):
    solution = bl.solve(energy, solver=bl.ADMM(), tol=1e-12)
    assert type(solution.solver.exact).__name__ == (exact or "NoneType")
    testing.solvers_agree(energy, [bl.ADMM(), bl.PrimalDual()], tol=1e-12)
    testing.fixed_point(energy, solution, tol=1e-5)


def test_admm_converges_for_every_penalty():
    energy = LS(y) + 0.3 * TV1
    best = bl.solve(energy, tol=1e-13).x
    for penalty in (0.1, 1.0, torch.tensor([0.3, 3.0, 30.0], dtype=D)):
        solution = bl.solve(energy, solver=bl.ADMM(penalty), tol=1e-12)
        torch.testing.assert_close(solution.x, best, rtol=0, atol=1e-5)


def test_the_penalty_of_a_sample_stays_with_it():
    penalty = torch.tensor([0.3, 3.0, 30.0], dtype=D)

    def energy(index):
        return LS(y[index]) + 0.3 * TV1

    together = bl.solve(energy(torch.arange(3)), solver=bl.ADMM(penalty), tol=1e-9)
    for i in range(3):
        alone = bl.solve(energy([i]), solver=bl.ADMM(penalty[i : i + 1]), tol=1e-9)
        assert together.iterations[i] == alone.iterations[0]
        torch.testing.assert_close(together.x[i], alone.x[0], rtol=1e-12, atol=1e-12)


def test_the_derivatives_of_an_admm_solution():
    def solution(A, b, weight):
        energy = LS(b) @ bl.Matrix(A) + weight * TV1
        x0 = torch.zeros(1, 3, dtype=D)
        return bl.argmin(energy, x0=x0, solver=bl.ADMM(), tol=1e-12)

    parameters = drawn(1, 6, 3), 3 * drawn(1, 6), torch.tensor(0.1, dtype=D)
    testing.gradcheck(solution, parameters)
    testing.gradgradcheck(solution, parameters)


def test_unrolled_admm():
    def solution(b, weight):
        energy = LS(b) + weight * TV1
        return bl.argmin(energy, solver=bl.ADMM(), tol=1e-13, diff=bl.Unroll())

    testing.gradients_agree(solution, (y, torch.tensor(0.3, dtype=D)), rtol=1e-4)


@pytest.mark.parametrize(
    "solver, energy, match",
    [
        (bl.DouglasRachford(), LS(y), r"two terms with a prox, got LeastSquares. Use PrimalDual"),
        (bl.DouglasRachford(), LS(drawn(3, 6)) @ bl.Matrix(A) + L1(), r"Use DavisYin\(\) or Pri"),
        (bl.DavisYin(), LS(y) + L1(), r"Use ForwardBackward\(\)"),
        (bl.DavisYin(), L1() + Box(0.0, 1.0), r"Use DouglasRachford\(\)"),
        (bl.DavisYin(), LS(y) + L1() + TV1, r"Use PrimalDual\(\)"),
        (bl.ADMM(), LS(y) + L1(), r"a composed term h\(Kx\), got LeastSquares \+ L1"),
    ],
)
def test_what_a_splitting_cannot_solve_is_refused_by_name(solver, energy, match):
    with pytest.raises(TypeError, match=match):
        bl.solve(energy, x0=y, solver=solver)


def test_steps_beyond_their_limits_are_refused():
    energy = LS(y) + L1() + Box(-0.3, 0.3)
    with pytest.raises(ValueError, match=r"step_size = 2 cannot converge: .* below 2 / L"):
        bl.solve(energy, solver=bl.DavisYin(2.0))
    for solver, term in ((bl.DouglasRachford(-1.0), L1()), (bl.ADMM(0.0), TV1)):
        with pytest.raises(ValueError, match="must be positive and finite"):
            bl.solve(LS(y) + term, solver=solver)
    with pytest.raises(ValueError, match="ADMM sets the step of its x-update itself"):
        bl.solve(LS(y) + TV1, solver=bl.ADMM(step_size=0.1))
