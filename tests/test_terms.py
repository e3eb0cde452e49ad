"""The laws of terms, on every term of the registry."""

import pytest
import torch

import bilevel as bl
from bilevel import testing
from registry import TERMS, Draw

pytestmark = pytest.mark.usefixtures("float64")


def build(case, batch=4, seed=0):
    draw = Draw(batch, case.event, seed=seed)
    return case.make(draw), draw


def selected(kind, valued=False):
    """The cases whose term is of a kind."""
    cases = [c for c in TERMS if isinstance(build(c)[0], kind) and (c.valued or not valued)]
    return pytest.mark.parametrize("case", cases, ids=str)


STEPS = [
    0.3,
    torch.tensor(2.0, dtype=torch.float64),
    torch.tensor([0.1, 0.5, 1.0, 4.0], dtype=torch.float64),
]


@selected(bl.Term, valued=True)
def test_values_are_per_sample(case):
    term, draw = build(case)
    testing.values_are_per_sample(term, draw.x())
    testing.values_are_per_sample(term, 0 * draw.x())


@selected(bl.Proximable, valued=True)
def test_prox(case):
    """At random points, at 0, where kinks are, and far out, where steps differ."""
    for seed, step in enumerate(STEPS):
        term, draw = build(case, seed=seed)
        for x in (draw.x(), 10 * draw.x(), 0 * draw.x()):
            testing.prox_minimises(term, x, step)
            testing.moreau(term, x, step)
            if case.convex:
                testing.prox_gives_subgradient(term, x, step)
                testing.prox_firmly_nonexpansive(term, x, draw.x(), step)


@selected(bl.Proximable, valued=True)
def test_a_step_for_each_coordinate(case):
    """admissible makes of given steps some that the prox can take."""
    for seed in range(3):
        term, draw = build(case, seed=seed)
        for given in (draw.full(), draw.full()[:1]):
            step = term.admissible(given)
            assert (step <= given).all()
            x = draw.x()
            if case.convex:
                testing.prox_gives_subgradient(term, 3 * x, step)
            testing.moreau(term, 3 * x, step)


@selected(bl.Proximable)
def test_prox_is_pure(case):
    term, draw = build(case)
    x = draw.x()
    before = x.clone()
    assert torch.equal(term.prox(x, 0.5), term.prox(x, 0.5))
    assert torch.equal(x, before)


@selected(bl.Proximable)
def test_a_step_for_all_is_a_step_for_each(case):
    term, draw = build(case)
    x = draw.x()
    for prox in (term.prox, term.prox_conjugate):
        each = prox(x, torch.full((len(x),), 0.3))
        torch.testing.assert_close(each, prox(x, 0.3), rtol=1e-14, atol=1e-14)


@selected(bl.Proximable)
def test_prox_has_the_derivative_of_its_differences(case):
    """Random points are off the kinks; gradcheck's differences have an error of about 1e-9."""
    term, draw = build(case, batch=2)
    step = torch.tensor([0.4, 1.1], requires_grad=True)
    x = draw.normal(2, *draw.event).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: term.prox(x, step.detach()), x)
    assert torch.autograd.gradgradcheck(lambda x: term.prox(x, step.detach()), x)
    assert torch.autograd.gradcheck(lambda x: term.prox_conjugate(x, step.detach()), x)


@selected(bl.Dualizable)
def test_conjugate(case):
    for seed, step in enumerate(STEPS):
        term, draw = build(case, seed=seed)
        testing.conjugate_inequality(term, draw.x(), 0.1 * draw.x(), step)
        testing.conjugate_inequality(term, 3 * draw.x(), 3 * draw.x(), step)


# 0 is outside the conjugate's domain, and no scale brings a point in
AWAY_FROM_ZERO = (bl.LogBarrier, bl.LogSumExp, bl.CrossEntropy, bl.Linear, bl.Largest)
SIGNED = (bl.Logistic, bl.Hinge, bl.SquaredHinge)  # 0 is at its edge


@pytest.mark.parametrize(
    "case",
    [
        c
        for c in TERMS
        if isinstance(build(c)[0], bl.Dualizable) and not isinstance(build(c)[0], AWAY_FROM_ZERO)
    ],
    ids=str,
)
def test_dual_scale(case):
    term, draw = build(case)
    signed = isinstance(term, SIGNED) or case.name == "Box, half open"
    scalable = case.scalable and not signed  # no scale turns a sign
    for size in (0.0, 0.1, 1.0, 10.0) if scalable else (0.0,):
        testing.dual_scale_fits(term, size * draw.x())


@selected(bl.Smooth, valued=True)
def test_grad(case):
    for seed in range(3):
        term, draw = build(case, seed=seed)
        testing.grad_is_autograd(term, draw.x())
        testing.constants_hold(term, draw.x(), draw.x())
        testing.constants_hold(term, 0.01 * draw.x(), 0.01 * draw.x())


@selected(bl.Weighted)
def test_weight_multiplies(case):
    term, draw = build(case)
    testing.weight_multiplies(term, draw.x(), 0.7, 0.9)
    each = draw.per_sample()
    torch.testing.assert_close((each * term).value(draw.x()).shape, torch.Size([4]))
    x = draw.x()
    torch.testing.assert_close((each * term).value(x), each.flatten() * term.value(x))


@selected(bl.Term)
def test_take(case):
    term, draw = build(case)
    x = draw.x()
    if not case.indexable:
        assert term.take(torch.tensor([0]), x) is None
        return
    for index in ([2], [3, 0], [1, 1, 2], [0, 1, 2, 3], []):
        index = torch.tensor(index, dtype=torch.long)
        testing.take_is_indexing(term, x, index, torch.tensor([0.3, 0.7, 1.0, 1.5]))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_batch_as_large_as_a_dim_is_no_confusion(batch):
    """Shape alone cannot tell a per-feature weight from a per-sample one; rank does."""
    draw = Draw(batch, (batch,))
    x, index = draw.x(), torch.tensor([batch - 1])
    for weight in (draw.per_pixel(), draw.per_sample(), draw.full(), torch.tensor(0.3)):
        testing.take_is_indexing(weight * bl.L1(), x, index)
    taken = (draw.per_pixel() * bl.L1()).take(index, x)
    assert taken.weight.shape == (batch,)


def test_a_law_that_is_broken_says_so():
    class Wrong(bl.L1):
        def prox(self, x, step):
            return super().prox(x, 1.001 * step)

    x = Draw(4, (5,)).x()
    with pytest.raises(AssertionError, match=r"Wrong: prox_gives_subgradient is broken in . of 4"):
        testing.prox_gives_subgradient(Wrong(), x, 0.5)
    with pytest.raises(AssertionError, match="Wrong: moreau is broken in 4 of 4 cases"):
        testing.moreau(Wrong(), 3 * x, 0.5)

    class Mixing(bl.L1):
        def density(self, x):
            return x.abs() - x.mean(0, keepdim=True)

    with pytest.raises(AssertionError, match=r"Mixing: values_are_per_sample \(sample 0 reads"):
        testing.values_are_per_sample(Mixing(), x)
    with pytest.raises(AssertionError, match="Potential: take_is_indexing is broken: take gave"):
        testing.take_is_indexing(bl.Potential(torch.sum), x, torch.tensor([0]))


def test_groups_of_weight_0_leave_a_gap():
    """Their dual is 0, which is inside a ball of radius 0."""
    weight = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None]
    y = torch.tensor([[[0.0, 0.0], [0.6, 0.8]]], dtype=torch.float64)
    term = weight * bl.L21()
    assert term.conjugate(y) == 0 and term.dual_scale(y) == 1
    assert term.conjugate(y + 1e-9) == torch.inf
