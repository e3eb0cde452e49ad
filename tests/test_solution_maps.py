"""The closed forms against minimisation, differences and the library."""

import warnings

import pytest
import torch

import bilevel as bl
from bilevel.testing import solution_maps
from bilevel.testing.solution_maps import KINKS, MAPS, error

pytestmark = pytest.mark.usefixtures("float64")

TIGHT = {"tol": 1e-13, "max_iter": 100_000}
SMOOTH_T = [m for m in MAPS if m.name not in ("matrix game", "entropic transport")]


def gradient(map, theta, g, probe=False, **options):
    """The gradient of <g, x> by argmin, by name, and its certificate."""
    leaves = {name: part.clone().requires_grad_() for name, part in theta.items()}
    x0 = torch.full((1, *g.shape), 0.25)  # where no data tell: the middle of the simplex
    x = bl.argmin(map.energy(leaves), x0=x0, **{**TIGHT, **options})
    loss = (g * x[0]).sum()
    found, certificate = bl.hypergradient(loss, list(leaves.values()), probe=probe)
    return dict(zip(leaves, found, strict=True)), certificate


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("map", MAPS, ids=str)
def test_the_closed_form_is_the_solution(map, seed):
    theta = map.draw(seed)
    x, energy = map.solution(theta), map.energy(theta)
    problem = energy if isinstance(energy, bl.Problem) else bl.Problem((energy,))
    found = bl.solve(energy, x0=torch.full((1, *x.shape), 0.25), **TIGHT).x[0]
    torch.testing.assert_close(found, x, rtol=1e-6, atol=1e-6)  # a gap of 1e-13
    torch.testing.assert_close(problem.value(x[None])[0], map.value(x, theta))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("map", MAPS, ids=str)
def test_the_jacobian_is_that_of_central_differences(map, seed):
    theta, h = map.draw(seed), 1e-5
    (jacobian,) = map.jacobians(theta)
    for name, part in theta.items():
        d = torch.randn(part.shape)
        ends = [map.solution({**theta, name: part + sign * h * d}) for sign in (1, -1)]
        expected = torch.tensordot(jacobian[name], d, d.ndim) if d.ndim else jacobian[name] * d
        torch.testing.assert_close((ends[0] - ends[1]) / (2 * h), expected, rtol=1e-7, atol=1e-8)


def test_every_map_shows_more_than_one_of_its_formulas():
    for map in (m for m in MAPS if len(m.patterns) > 1):
        first = map.optimal(map.draw(0))
        assert any(map.optimal(map.draw(seed)) != first for seed in range(1, 20)), map.name


def test_a_draw_is_repeatable_and_another_seed_another_problem():
    first, again, other = (solution_maps.lasso.draw(seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["A"], other["A"])


@pytest.mark.parametrize("map", MAPS, ids=str)
@pytest.mark.parametrize("strategy", [None, bl.FixedPoint(), bl.Implicit()], ids=repr)
def test_exact_strategies_are_exact(map, strategy):
    theta = map.draw(4)
    g = torch.randn(map.solution(theta).shape)
    found, _ = gradient(map, theta, g, diff=strategy)
    assert error(found, map.gradients(theta, g)) < 1e-8


@pytest.mark.parametrize("map", SMOOTH_T, ids=str)
def test_unrolling_many_steps_comes_near(map):
    theta = map.draw(0)
    g = torch.randn(map.solution(theta).shape)
    found, _ = gradient(map, theta, g, diff=bl.Unroll(last=600), solver=bl.ForwardBackward())
    assert error(found, map.gradients(theta, g)) < 1e-8


@pytest.mark.parametrize("map", [solution_maps.game, solution_maps.transport], ids=str)
def test_an_unrolled_run_with_restarts_has_a_gradient(map):
    """The steps of restarted Halpern are rebalanced by lengths that may be 0: no NaN from there."""
    theta = map.draw(0)
    g = torch.randn(map.solution(theta).shape)
    found, _ = gradient(map, theta, g, diff=bl.Unroll(), tol=1e-9)
    assert error(found, map.gradients(theta, g)) < 1e-4


@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_at_a_kink_the_gradient_lies_between_the_sides_and_a_probe_says_so(kink):
    g = torch.randn(kink.map.solution(kink.theta).shape)
    sides = kink.map.gradients(kink.theta, g)
    assert len(sides) == 2 and error(sides[0], [sides[1]]) > 0.01
    with pytest.warns(bl.KinkWarning, match="only directional derivatives exist"):
        found, certificate = gradient(kink.map, kink.theta, g, probe=True)
    assert error(found, sides) < 1e-9  # the adjoint is solved to about 1e-12
    assert certificate.influence > 1e-3


@pytest.mark.parametrize("kink", KINKS, ids=str)
def test_beside_a_kink_no_probe_warns(kink):
    """A hundredth away in the direction that the loss feels."""
    theta = {name: part * (1 + 0.01 * torch.rand(part.shape)) for name, part in kink.theta.items()}
    assert len(kink.map.optimal(theta)) == 1
    g = torch.randn(kink.map.solution(theta).shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", bl.KinkWarning)
        found, _ = gradient(kink.map, theta, g, probe=True)
    assert error(found, kink.map.gradients(theta, g)) < 1e-8


def test_the_error_of_a_wrong_gradient_is_seen():
    map = solution_maps.simplex
    theta = map.draw(0)
    g = torch.randn(5)
    (exact,) = map.gradients(theta, g)
    wrong = {**exact, "total": 1.1 * exact["total"]}
    assert 0.01 < error(wrong, [exact]) < 0.2
    assert error(exact, [exact]) == 0.0
