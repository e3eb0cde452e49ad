"""The same prox as pyproximal, term by term, where it has one."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import bilevel as bl

pyproximal = pytest.importorskip("pyproximal")
pylops = pytest.importorskip("pylops")
pytestmark = pytest.mark.usefixtures("float64")

RNG = np.random.default_rng(0)
Q = RNG.normal(size=(7, 7))
TURN = np.linalg.qr(Q)[0]
b = RNG.normal(size=7)


def matrix(a):
    return pylops.MatrixMult(a)


# name -> (theirs, ours); a comment where the two packages mean different things by a parameter
PAIRS = {
    "L1": lambda p: (p.L1(0.3), 0.3 * bl.L1()),
    "L2": lambda p: (p.L2(b=b, sigma=0.3), 0.3 * bl.LeastSquares(torch.tensor(b)[None])),
    "Euclidean": lambda p: (p.Euclidean(0.3), 0.3 * bl.L2()),
    "ETP": lambda p: (p.ETP(0.4, 0.7), 0.4 / (1 - math.exp(-0.7)) * bl.ETP(1 / 0.7)),
    "ETP, a jump": lambda p: (p.ETP(0.4, 3.0), 0.4 / (1 - math.exp(-3.0)) * bl.ETP(1 / 3.0)),
    "Geman": lambda p: (p.Geman(0.4, 1.3), 0.4 * bl.Geman(1.3)),
    "Geman, a jump": lambda p: (p.Geman(0.4, 0.3), 0.4 * bl.Geman(0.3)),
    "Log": lambda p: (p.Log(0.4, 1.3), 0.4 / math.log(2.3) * bl.LogSum(1 / 1.3)),
    "Log, a jump": lambda p: (p.Log(0.4, 9.0), 0.4 / math.log(10.0) * bl.LogSum(1 / 9.0)),
    "SCAD": lambda p: (p.SCAD(0.5, 3.7), bl.SCAD(0.5, 3.7)),
    "RelaxedMumfordShah": lambda p: (
        p.RelaxedMumfordShah(0.8, 0.5),
        1.6 * bl.TruncatedQuadratic(0.5 / 1.6),
    ),
    "QuadraticEnvelopeCard": lambda p: (p.QuadraticEnvelopeCard(0.3), bl.MCP(0.6**0.5, 1.0)),
    "QuadraticEnvelopeCardIndicator": lambda p: (
        p.QuadraticEnvelopeCardIndicator(3),
        bl.SparseEnvelope(3),
    ),
    "HuberCircular": lambda p: (p.HuberCircular(0.7), bl.MoreauEnvelope(bl.L2(), 0.7)),
    "Quadratic": lambda p: (
        p.Quadratic(matrix(Q.T @ Q), b),
        bl.Quadratic(torch.tensor(Q.T @ Q), torch.tensor(b)),
    ),
    "Orthogonal": lambda p: (
        p.Orthogonal(p.L1(0.3), matrix(TURN)),
        bl.Orthogonal(0.3 * bl.L1(), bl.Matrix(torch.tensor(TURN))),
    ),
    "Orthogonal, a frame": lambda p: (
        p.Orthogonal(p.L1(0.3), matrix(2 * TURN[:3]), partial=True, alpha=4.0),
        bl.Orthogonal(0.3 * bl.L1(), bl.Matrix(torch.tensor(2 * TURN[:3])), 4.0),
    ),
    "VStack": lambda p: (
        p.VStack([p.L1(0.3), p.SCAD(0.5)], nn=[3, 4]),
        bl.Separable(0.3 * bl.L1(), bl.SCAD(0.5), sizes=(3, 4)),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("step", [0.2, 0.9])
def test_the_same_prox(name, step):
    theirs, ours = PAIRS[name](pyproximal)
    for size in (0.3, 1.0, 5.0):
        x = size * RNG.normal(size=7)
        got = ours.prox(torch.tensor(x)[None], step)[0]
        np.testing.assert_allclose(got, theirs.prox(x, step), rtol=1e-9, atol=1e-9)


VALUED = [n for n in PAIRS if n != "RelaxedMumfordShah"]


@pytest.mark.parametrize("name", VALUED)  # theirs takes one minimum of sums for Mumford-Shah
def test_the_same_value(name):
    theirs, ours = PAIRS[name](pyproximal)
    x = RNG.normal(size=7)
    np.testing.assert_allclose(ours.value(torch.tensor(x)[None])[0], theirs(x), rtol=1e-9)


def test_a_hard_threshold_is_at_the_root():
    """pyproximal.L0 cuts at step sigma; the prox of sigma |x|_0 cuts at sqrt(2 step sigma)."""
    x, step, sigma = RNG.normal(size=7), 0.6, 0.8
    theirs = pyproximal.L0(sigma).prox(x, step)
    ours = (step * sigma**2 / 2) * bl.L0()
    np.testing.assert_allclose(ours.prox(torch.tensor(x)[None], step)[0], theirs)


def test_huber_away_from_its_middle():
    """pyproximal.Huber changes branch at |x| = alpha; the prox does at alpha + step."""
    x, step = np.array([0.1, -0.4, 0.5, 2.0, -3.0]), 0.6
    ours = bl.Huber(0.7).prox(torch.tensor(x)[None], step)[0]
    np.testing.assert_allclose(ours, pyproximal.Huber(0.7).prox(x, step))


def test_group_norms():
    x, step = RNG.normal(size=(3, 4)), 0.5  # theirs: groups are the columns
    theirs = pyproximal.L21(3, sigma=0.6).prox(x.ravel(), step)
    ours = (0.6 * bl.L21(dim=1)).prox(torch.tensor(x)[None], step)[0]
    np.testing.assert_allclose(ours.flatten(), theirs)
    labels = torch.arange(4).repeat(3)
    ours = (0.6 * bl.GroupL2(labels)).prox(torch.tensor(x.ravel())[None], step)[0]
    np.testing.assert_allclose(ours, theirs)
    theirs = pyproximal.L21_plus_L1(0.6, rho=0.7).prox(x, step)
    ours = (0.6 * bl.SparseL21(0.7, dim=1)).prox(torch.tensor(x)[None], step)[0]
    np.testing.assert_allclose(ours, theirs)


OF_SINGULAR_VALUES = [
    "L1",
    "Log",
    "Log, a jump",
    "SCAD",
    "Geman",
    "ETP, a jump",
    "QuadraticEnvelopeCard",
]


@pytest.mark.parametrize("name", OF_SINGULAR_VALUES)
def test_a_penalty_of_singular_values(name):
    penalty, ours = PAIRS[name](pyproximal)
    theirs, ours = pyproximal.SingularValuePenalty((4, 3), penalty), bl.SingularValues(ours)
    for size, step in ((0.3, 0.2), (1.0, 0.9), (5.0, 0.9)):
        x = size * RNG.normal(size=(4, 3))
        got = ours.prox(torch.tensor(x)[None], step)[0]
        np.testing.assert_allclose(got.ravel(), theirs.prox(x.ravel(), step), atol=1e-9)
        value = ours.value(torch.tensor(x)[None])[0]
        np.testing.assert_allclose(value, theirs(x.ravel()), rtol=1e-9)


@pytest.mark.parametrize("rank", [1, 2])
def test_the_envelope_of_the_rank_and_a_square(rank):
    """The prox; of the misfit their value takes the norm where the square is meant."""
    for size, step in ((0.3, 0.2), (1.0, 0.9), (5.0, 0.9)):
        x, target = size * RNG.normal(size=(4, 3)), RNG.normal(size=(4, 3))
        theirs = pyproximal.QuadraticEnvelopeRankL2((4, 3), rank, target)
        envelope = bl.SingularValues(bl.SparseEnvelope(rank))
        ours = bl.Anchored(envelope, torch.tensor(target)[None])
        got = ours.prox(torch.tensor(x)[None], step)[0]
        np.testing.assert_allclose(got.ravel(), theirs.prox(x.ravel(), step), atol=1e-9)


def test_red_has_the_same_gradient():
    x, turn = torch.tensor(RNG.normal(size=7)), torch.tensor(TURN + TURN.T) / 4
    theirs = pyproximal.RED(lambda v, sigma: turn.numpy() @ v, (7,), sigma=0.6, sigmad=1.0)
    ours = 0.6 * bl.RED(lambda v: v @ turn)
    np.testing.assert_allclose(ours.grad(x[None])[0], theirs.grad(x.numpy()))


def test_the_guide_tells_where_each_is():
    guide = (Path(__file__).parent.parent / "docs" / "how_to_choose.md").read_text()
    table = guide.partition("### From pyproximal")[2].partition("## Solvers")[0]
    names = {*pyproximal.proximal.__all__, *pyproximal.projection.__all__}
    told = set(re.findall(r"`(\w+)`", table))
    assert not {name.removesuffix("Proj") for name in names} - told
