"""The manifolds of the terms, on every term of the registry."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from bilevel.terms.manifolds import Coordinates
from registry import Draw
from test_terms import build, selected

pytestmark = pytest.mark.usefixtures("float64")


@selected(bl.Proximable, valued=True)
@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_manifold_is_that_of_the_prox(case, scale):
    term, draw = build(case)
    testing.manifold_is_that_of_prox(term, scale * draw.x())


def test_a_wrong_manifold_is_found():
    class Loose(bl.L1):
        def manifold(self, x, dual):
            return Coordinates(torch.ones_like(x) > 0, torch.zeros(len(x)))

    with pytest.raises(AssertionError, match="Loose: manifold_is_that_of_prox is broken in"):
        testing.manifold_is_that_of_prox(Loose(), 0.5 * torch.ones(1, 3))


MARGINS = {
    "L1": (bl.L1(), [1.3, 0.2, -0.9], 0.1),
    "L1 of weight 0": (0.0 * bl.L1(), [1.3, 0.0, -0.9], torch.inf),
    "L21": (0.5 * bl.L21(), [0.3, 0.4, 0.0], 0.0),
    "ElasticNet": (bl.ElasticNet(0.5), [1.3, 0.2, -0.9], 0.3),
    "Box": (bl.Box(-1.0, 1.0), [0.7, 1.5, -1.2], 0.2),
    "Box, a point": (bl.Box(1.0, 1.0), [1.0, 1.5, 0.5], torch.inf),
    "NonNegative": (bl.NonNegative(), [1.0, -0.3, 2.0], 0.3),
    "Simplex": (bl.Simplex(), [1.0, 0.6, -0.1], 0.3),  # the level is 0.3
    "L2Ball": (bl.L2Ball(1.0), [0.0, 3.0, 4.0], 4.0),
    "L1Ball": (bl.L1Ball(1.0), [1.0, -0.6, 0.1], 0.2),
    "L1Ball, inside": (bl.L1Ball(1.0), [0.3, -0.3, 0.1], 0.3),
    "LinfBall": (bl.LinfBall(1.0), [0.3, -1.4, 0.9], 0.1),
    "Linf": (bl.Linf(), [3.0, 1.8, -2.4], 0.2),  # cut at 2.2
    "Linf, all 0": (bl.Linf(), [0.3, 0.1, -0.2], 0.4),
    "SortedL1": (bl.SortedL1(torch.tensor([1.0, 0.5, 0.25])), [3.0, 1.0, -0.5], 0.25),
    "TotalVariation1D": (0.5 * bl.TotalVariation(dims=1), [0.0, 0.4, 3.0], 0.05),
    "Monotone": (bl.Monotone(), [1.0, 0.4, 3.0], 0.3),
    "Absolute": (bl.Absolute(1.0), [1.3, 0.2, -0.9], 0.2),
    "Quantile": (bl.Quantile(0.5, 0.0), [1.3, 0.2, -0.9], 0.3),
    "Hinge": (bl.Hinge(torch.ones(1, 3)), [1.3, 0.2, -0.9], 0.2),
}


@pytest.mark.parametrize("name", MARGINS)
def test_margins_by_hand(name):
    """The least slack of the conditions on x + dual."""
    term, w, margin = MARGINS[name]
    w = torch.tensor([w])
    p = term.prox(w, 1.0)
    got = term.manifold(p, w - p).margin
    torch.testing.assert_close(got, torch.tensor([float(margin)]), rtol=0, atol=1e-12)


def test_a_margin_is_not_known_without_a_closed_form():
    w = Draw(2, (3, 3)).x()
    assert bl.Nuclear().manifold(bl.Nuclear().prox(w, 1.0), 0 * w).margin.isnan().all()


def test_samples_of_other_dimension_have_columns_of_zeros():
    w = torch.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, -2.0]])
    basis = bl.L1().manifold(w, w.sign()).basis()
    assert basis.shape == (2, 3, 2) and basis.square().sum((1, 2)).tolist() == [2, 1]
