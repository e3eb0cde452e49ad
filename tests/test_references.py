"""The references prove themselves: optimality, minimal energy, derivatives against re-solving."""

import numpy as np
import pytest

from references import REFERENCES, NotSolved, central_difference
from references.base import Answer, fista
from references.total_variation import solve_by_newton

CASES = [
    ("ridge", {"rows": 20, "columns": 10}),
    ("ridge", {"rows": 20, "columns": 10, "weight_shape": (10,)}),
    ("logistic", {"rows": 40, "columns": 10}),
    ("logistic", {"rows": 40, "columns": 10, "weight_shape": (10,)}),
    ("lasso", {"rows": 20, "columns": 40}),
    ("lasso", {"rows": 20, "columns": 40, "weight_shape": (40,)}),
    ("elastic_net", {"rows": 20, "columns": 40}),
    ("elastic_net", {"rows": 20, "columns": 40, "weight_shape": (40,)}),
    ("group_lasso", {"rows": 30, "groups": 10, "size": 3}),
    ("group_lasso", {"rows": 30, "groups": 10, "size": 3, "weight_shape": (10,)}),
    ("simplex_least_squares", {}),
    ("box_least_squares", {}),
    ("l2_ball_projection", {}),
    ("l2_ball_projection", {"inside": True}),
    ("l2_ball_least_squares", {}),
    ("l2_ball_least_squares", {"inside": True}),
    ("l1_analysis_box", {"n": 12}),
    ("l1_analysis_box", {"n": 12, "width_shape": (12,)}),
    ("tv1d", {"n": 100}),
    ("tv1d", {"n": 100, "weight_shape": (100,)}),
    ("tv2d_anisotropic", {"shape": (8, 7)}),
    ("tv2d_anisotropic", {"shape": (8, 7), "weight_shape": (2, 8, 7)}),
    ("tv2d_anisotropic", {"shape": (8, 7), "weight_shape": (8, 7)}),
    ("tv2d_isotropic", {"shape": (8, 7)}),
    ("tv2d_isotropic", {"shape": (8, 7), "weight_shape": (8, 7)}),
]
cases = pytest.mark.parametrize("name, size", CASES, ids=str)


@cases
def test_optimality_conditions_hold_to_rounding(name, size):
    for seed in range(3):
        _, answer = REFERENCES[name].instance(seed, **size)
        assert answer.residual <= 1e-12
        assert answer.margin >= 1e-3


@cases
def test_no_feasible_point_has_less_energy(name, size):
    """Independent of the optimality conditions: the energy on segments to random points."""
    reference = REFERENCES[name]
    theta, answer = reference.instance(**size)
    rng = np.random.default_rng(1)
    least = reference.objective(theta, answer.x)
    for _ in range(20):
        v = feasible(name, theta, answer.x, rng)
        for t in (1.0, 0.1, 1e-3, 1e-5):
            value = reference.objective(theta, answer.x + t * (v - answer.x))
            assert np.isfinite(value)
            assert value >= least - 1e-13 * abs(least)  # the rounding of a sum


def feasible(name, theta, x, rng):
    """A random point of the constraint set, or any point where there is none."""
    if name.startswith("l2_ball"):
        v = rng.standard_normal(x.shape)
        return v * (rng.uniform() * theta["radius"] / np.linalg.norm(v))
    if name == "simplex_least_squares":
        return rng.dirichlet(np.ones(len(x))) * theta["radius"]
    if name == "box_least_squares":
        return rng.uniform(theta["lower"], theta["upper"])
    if name == "l1_analysis_box":
        return theta["y"] + theta["eta"] * rng.uniform(-1, 1, x.shape)
    return x + rng.standard_normal(x.shape)


@cases
def test_vjp_agrees_with_solving_again(name, size):
    """2e-9: the truncation is O(h^4), far below; a solve is good to rounding times its condition
    number, 1e-15 to 1e-14 here, and the difference divides that by h = 1e-5."""
    reference = REFERENCES[name]
    theta, answer = reference.instance(**size)
    rng = np.random.default_rng(2)
    g = rng.standard_normal(answer.x.shape)
    gradients = answer.vjp(g)
    assert set(gradients) == set(theta)
    for key, gradient in gradients.items():
        assert gradient.shape == theta[key].shape
        for _ in range(2):
            d = rng.standard_normal(theta[key].shape)
            d /= np.linalg.norm(d)
            by_solving = np.sum(g * central_difference(reference.solve, theta, {key: d}, 1e-5))
            error = abs(np.sum(gradient * d) - by_solving)
            assert error <= 2e-9 * np.linalg.norm(gradient), key


@pytest.mark.parametrize("weight_shape", [(), (60,)])
def test_taut_string_and_newton_agree(weight_shape):
    """Two algorithms with nothing in common but the energy."""
    reference = REFERENCES["tv1d"]
    for seed in range(5):
        theta, string = reference.instance(seed, n=60, weight_shape=weight_shape)
        newton = solve_by_newton(theta, isotropic=True)
        assert np.abs(string.x - newton.x).max() <= 1e-13
        assert np.array_equal(string.active, newton.active)
        assert string.dual is not None and newton.dual is not None
        assert np.abs(string.dual - newton.dual).max() <= 1e-12


def test_derivative_of_tv1d_averages_over_segments():
    """dx/dy is a projector whose trace is the number of segments; it is not the identity."""
    _, answer = REFERENCES["tv1d"].instance(n=60)
    jacobian = np.stack([answer.vjp(row)["y"] for row in np.eye(60)])
    segments = 1 + np.count_nonzero(np.diff(answer.x))
    assert 1 < segments < 30
    assert np.abs(jacobian @ jacobian - jacobian).max() <= 1e-14
    assert abs(np.trace(jacobian) - segments) <= 1e-12


@pytest.mark.parametrize("name", ["tv1d", "tv2d_anisotropic", "tv2d_isotropic"])
def test_a_large_weight_leaves_the_mean(name):
    y = np.random.default_rng(0).standard_normal(30 if name == "tv1d" else (6, 5))
    answer = REFERENCES[name].solve({"y": y, "w": np.asarray(100.0)})
    gradients = answer.vjp(np.arange(30.0).reshape(y.shape))
    assert np.abs(answer.x - y.mean()).max() <= 1e-14
    assert np.abs(gradients["y"] - np.arange(30).mean()).max() <= 1e-13
    assert gradients["w"] == 0


def test_isotropic_tv_turns_with_the_image():
    """Rotating by transposition is a symmetry of forward differences; a bug in the axes is not."""
    theta, answer = REFERENCES["tv2d_isotropic"].instance(shape=(8, 7))
    turned = REFERENCES["tv2d_isotropic"].solve({"y": theta["y"].T, "w": theta["w"]})
    assert np.abs(turned.x - answer.x.T).max() <= 1e-13


def test_margin_vanishes_at_a_kink():
    theta, answer = REFERENCES["l2_ball_projection"].instance()
    at = {**theta, "radius": np.linalg.norm(theta["y"]) * np.asarray(1 - 1e-9)}
    assert REFERENCES["l2_ball_projection"].solve(at).margin <= 1e-8
    assert answer.margin > 0.5


def test_a_difference_across_a_kink_is_refused():
    theta, _ = REFERENCES["lasso"].instance(rows=20, columns=40)
    d = {"b": theta["b"]}
    with pytest.raises(NotSolved, match="active set changes within h"):
        central_difference(REFERENCES["lasso"].solve, theta, d, 1.0)


def test_an_impossible_margin_is_refused():
    with pytest.raises(NotSolved, match="lasso: none of 5 draws is 9.0e-01 from a kink"):
        REFERENCES["lasso"].instance(margin=0.9, draws=5, rows=20, columns=40)


def test_an_unproven_solution_is_refused():
    theta, _ = REFERENCES["l1_analysis_box"].instance(n=12)
    twice = {**theta, "K": np.vstack([theta["K"][:6]] * 2)}  # every row twice: no unique dual
    with pytest.raises(NotSolved, match="l1_analysis_box: the optimality conditions hold only to"):
        REFERENCES["l1_analysis_box"].solve(twice)


def test_an_empty_box_is_refused():
    theta, _ = REFERENCES["l1_analysis_box"].instance(n=12)
    with pytest.raises(NotSolved, match="HiGHS failed: .* Is eta positive?"):
        REFERENCES["l1_analysis_box"].solve({**theta, "eta": np.asarray(-1.0)})


def test_an_unidentified_active_set_is_refused():
    def never(x: np.ndarray) -> Answer | None:
        return None

    with pytest.raises(NotSolved, match="200 accelerated steps identified no optimal active set"):
        fista(np.eye(2), np.ones(2), lambda v, step: v, never, max_iter=200)
