"""explain: the theorem, its assumptions as they came out, the cost, what to do instead."""

import pytest
import torch

import bilevel as bl
from bilevel.differentiation.assumptions import sentence
from bilevel.differentiation.theorems import THEOREMS, covering

pytestmark = pytest.mark.usefixtures("float64")


def data(rows=8, columns=6):
    A, b = torch.randn(rows, columns), torch.randn(1, rows)
    return bl.LeastSquares(b) @ bl.Matrix(A)


@pytest.mark.parametrize("strategy, solver, theorem", [
    (bl.Implicit(), None, "A-posteriori bound of a hypergradient"),
    (bl.FixedPoint(), None, "Implicit function theorem"),
    (bl.Truncated(5), None, "Truncated series"),
    (bl.OneStep(), bl.Newton(), "Truncated series"),
    (bl.Unroll(), None, "Derivatives inherit acceleration"),
    (bl.Unroll(last=5), None, "Derivatives of a contracting iteration"),
])  # fmt: skip
def test_a_ridge_is_covered_for_every_strategy(strategy, solver, theorem):
    told = bl.explain(data() + 0.1 * bl.LeastSquares(), solver, strategy)
    assert told.theorem.name == theorem and told.instead == ()


def findings(told):
    return {found.assumption: found.holds for found in told.findings}


def test_a_kink_is_found_and_what_helps_is_said():
    kink = bl.LeastSquares(torch.tensor([[2.0, 1.0, -0.3]])) + 1.0 * bl.L1()
    told = bl.explain(kink)
    assert told.theorem.name == "Conservative Jacobian"
    assert findings(told)["T is smooth around z (strict complementarity)"] is False
    assert "NO       T is smooth around z" in str(told) and "probe=True" in str(told)
    assert bl.explain(kink, strategy=bl.Unroll(last=3)).theorem is None


def test_beside_the_kink_there_is_none():
    told = bl.explain(bl.LeastSquares(torch.tensor([[2.0, 1.01, -0.3]])) + 1.0 * bl.L1())
    assert (
        told.theorem.name == "Chain rule"
        and told.steps == "1 forward; backward one pass through the formula"
    )


def test_a_dual_that_is_not_unique_is_a_singular_system():
    y = torch.zeros(1, 1, 4, 4)
    y[..., 2:] = 1
    told = bl.explain(bl.LeastSquares(y + 0.01 * torch.randn_like(y)) + 0.3 * bl.TotalVariation())
    assert told.theorem.name == "Consistent singular system"
    assert findings(told)["M = I - dT/dz is invertible"] is False


def test_momentum_on_a_non_smooth_energy_is_covered_by_nothing():
    energy = data(12, 6) + 0.3 * bl.L1()
    told = bl.explain(energy, strategy=bl.Unroll())
    assert told.theorem is None
    assert any("acceleration=Plain()" in advice for advice in told.instead)
    assert "covered by no theorem" in str(told)


def test_a_solve_that_ends_early_is_covered_by_nothing():
    told = bl.explain(data() + 0.1 * bl.L1(), max_iter=1)
    assert told.theorem is None and findings(told)["z is the fixed point"] is False


def test_a_large_problem_says_what_it_does_not_know():
    told = bl.explain(data(300, 200) + 5.0 * bl.L1(), strategy=bl.FixedPoint())
    assert findings(told)["M = I - dT/dz is invertible"] is None
    assert "unknown  M = I - dT/dz is invertible: 200 unknowns" in str(told)


def test_unknown_constants_are_no_yes():
    told = bl.explain(bl.Huber(0.1, torch.randn(1, 4)) + 0.1 * bl.LeastSquares())
    assert findings(told)["the Hessian has a known Lipschitz constant"] is None
    assert told.theorem.name != "A-posteriori bound of a hypergradient"


def test_a_strategy_of_ones_own_is_in_no_row():
    class Own(bl.Strategy):
        def __call__(self, run, fixpoint, z0):
            return run(fixpoint, z0)

    told = bl.explain(data() + 0.1 * bl.L1(), strategy=Own())
    assert told.theorem is None and told.findings == () and "not in the table" in str(told)


@pytest.mark.parametrize(
    "strategy",
    [
        bl.FixedPoint(),
        bl.Implicit(),
        bl.Truncated(2),
        bl.OneStep(),
        bl.Unroll(),
        bl.PartlySmooth(),
        bl.Smoothed(0.1),
        bl.Piggyback(bl.LeastSquares()),
        bl.FlatZones(),
    ],
)
def test_every_strategy_has_a_row(strategy):
    assert covering(strategy)


def test_flat_zones_cover_images_alone():
    flat, image = bl.FlatZones(), bl.LeastSquares(torch.rand(1, 4, 4, dtype=torch.float64))
    assert bl.explain(image + 0.1 * bl.TotalVariation(), strategy=flat).theorem is not None
    told = bl.explain(image + 0.1 * bl.L1(), strategy=flat)
    assert told.theorem is None and "NO       the energy is LeastSquares + Total" in str(told)


def test_every_row_is_complete():
    for theorem in THEOREMS:
        texts = (theorem.name, theorem.says, theorem.memory, theorem.steps, theorem.source)
        assert all(texts) and theorem.strategies and all(map(sentence, theorem.assumes))
    assert len({t.name for t in THEOREMS}) == len(THEOREMS)


def test_batches_and_an_empty_one():
    batch = bl.LeastSquares(torch.randn(3, 5)) + 0.1 * bl.L1()
    assert bl.explain(batch).theorem is not None
    with pytest.raises(ValueError, match="got an empty batch"):
        bl.explain(bl.LeastSquares(torch.zeros(0, 5)) + 0.1 * bl.L1())
