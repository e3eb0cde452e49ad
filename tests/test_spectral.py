"""Derivatives at repeated singular values, at kinks and ties, and in what terms are made of."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import bilevel as bl
from registry import TERMS, Draw

pytestmark = [
    pytest.mark.usefixtures("float64"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated"),  # torch's forward mode
]

PROXIMABLE = [c for c in TERMS if isinstance(c.make(Draw(event=c.event)), bl.Proximable)]


def normal(*shape, seed=0):
    return Draw(seed=seed).normal(*shape)


def rotated(*values, n, seed=0):
    """(1, m, n): a matrix with these singular values."""
    m = len(values)
    u = torch.linalg.qr(normal(m, m, seed=seed)).Q
    v = torch.linalg.qr(normal(n, n, seed=seed + 1)).Q
    return (u @ torch.diag(torch.tensor(values, dtype=u.dtype)) @ v[:m])[None]


MATRIX_TERMS = [
    0.9 * bl.Nuclear(),
    0.8 * bl.SpectralNorm(),
    bl.NuclearBall(1.7),
    bl.SpectralBall(0.6),
]


@pytest.mark.parametrize("term", MATRIX_TERMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(
    "x",
    [
        rotated(1.0, 1.0, 1.0, n=3),
        rotated(1.0, 1.0, 1.0, n=4),
        rotated(2.0, 1.0, 1.0, n=5),
        rotated(2.0, 2.0, 0.1, n=3).mT.contiguous(),
        rotated(1.3, 0.05, 0.05, n=3),
        rotated(1.3, 0.05, 0.0, n=4),
        rotated(2.0, 0.0, 0.0, n=3),
        rotated(1.0, 1.0, n=9),  # the long side is shortened for the second derivative
        rotated(1.0, 0.1, n=9).mT.contiguous(),
    ],
    ids=lambda x: f"{tuple(x.shape)}",
)
def test_repeated_and_vanishing_singular_values_are_no_kink(term, x):
    """None of them is at a threshold."""
    x = x.clone().requires_grad_()
    for prox in (term.prox, term.prox_conjugate):
        assert gradcheck(lambda x: prox(x, 0.5), x, check_forward_ad=True)  # noqa: B023
        assert gradgradcheck(lambda x: prox(x, 0.5), x, check_fwd_over_rev=True)  # noqa: B023


@pytest.mark.parametrize(
    "values",
    [(1.0, 1.0, 1.0), (-1.0, -1.0, -1.0), (1.0, 1.0, -1.0), (2.0, 1.0, -1.0), (1.0, -0.5, -0.5)],
)
def test_repeated_eigenvalues_are_no_kink(values):
    q = torch.linalg.qr(normal(3, 3)).Q
    x = (q @ torch.diag(torch.tensor(values)) @ q.mT)[None].requires_grad_()
    cone = bl.PositiveSemidefinite()
    assert gradcheck(lambda x: cone.prox(x, 1.0), x)
    assert gradgradcheck(lambda x: cone.prox(x, 1.0), x)


@pytest.mark.parametrize("term", MATRIX_TERMS, ids=lambda t: type(t).__name__)
def test_the_third_derivative_is_refused(term):
    x = normal(1, 3, 4).requires_grad_()
    weight = normal(1, 3, 4, seed=3)
    y = (term.prox(x, 0.3) * weight).sum()
    for _ in range(2):
        (y,) = torch.autograd.grad(y, x, create_graph=True)
        y = (y * weight).sum()
    with pytest.raises(NotImplementedError, match="derivatives up to the second, the third was"):
        torch.autograd.grad(y, x)


@pytest.mark.parametrize("case", PROXIMABLE, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_a_sample_that_is_not_finite_harms_no_other(case, value):
    draw = Draw(event=case.event)
    term, x = case.make(draw), draw.x()
    spoilt = x.clone()
    spoilt[1] = value
    p, q = term.prox(spoilt, 0.7), term.prox(x, 0.7)
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(p[others], q[others], rtol=1e-14, atol=1e-14)
    if value != value:
        assert p[1].isnan().any(), "a NaN must not look like a point"


@pytest.mark.parametrize("case", PROXIMABLE, ids=str)
def test_derivatives_at_kinks_are_finite(case):
    """At 0, at points on the boundary, at ties, at equal entries: some number, never NaN."""
    draw = Draw(event=case.event)
    term = case.make(draw)
    x = draw.x()
    for point in (0 * x, 0 * x + 1, term.prox(x, 0.7), x.sign(), 3 * torch.ones_like(x).cumsum(-1)):
        point = point.detach().requires_grad_()
        p = term.prox(point, 0.7)
        (first,) = torch.autograd.grad(p.square().sum(), point, create_graph=True)
        assert first.isfinite().all()
        if first.requires_grad:
            try:
                (second,) = torch.autograd.grad(first.sin().sum(), point)
            except NotImplementedError as refused:  # of SingularValues, where there are ties
                assert "only where singular values differ" in str(refused)
            else:
                assert second.isfinite().all()


def learnable(*shape, seed):
    return normal(*shape, seed=seed).requires_grad_()


def positive(*shape, seed):
    return (normal(*shape, seed=seed).abs() + 0.2).requires_grad_()


# What a term is made of, and the event: its prox has a derivative in all of it
MADE_OF = [
    (bl.Box, (learnable(5, seed=1), positive(5, seed=2)), (5,)),
    (bl.L1Ball, (positive(2, 1, seed=1), learnable(2, 5, seed=2)), (5,)),
    (bl.LinfBall, (positive(2, 1, seed=1), learnable(2, 5, seed=2)), (5,)),
    (bl.L21Ball, (positive(2, 1, 1, seed=1),), (3, 4)),
    (bl.L1InfBall, (positive(2, 1, 1, seed=1),), (3, 4)),
    (bl.NuclearBall, (positive(2, 1, 1, seed=1),), (3, 4)),
    (bl.SpectralBall, (positive(2, 1, 1, seed=1),), (3, 4)),
    (lambda w: w * bl.Nuclear(), (positive(2, 1, 1, seed=1),), (3, 4)),
    (lambda w: w * bl.SpectralNorm(), (positive(2, 1, 1, seed=1),), (3, 4)),
    (lambda w: w * bl.Linf(), (positive(2, 1, seed=1),), (5,)),
    (lambda w: w * bl.L1Inf(), (positive(2, 3, 1, seed=1),), (3, 4)),
    (lambda w, d: w * bl.SortedL1(d.flip(0).cumsum(0).flip(0)),
     (positive(2, 1, seed=1), positive(5, seed=2)), (5,)),
    (bl.HalfSpace, (learnable(5, seed=1), learnable(2, 1, seed=2)), (5,)),
    (bl.Hyperplane, (learnable(2, 5, seed=1), learnable(2, 1, seed=2)), (5,)),
    (bl.HyperplaneBox,
     (learnable(5, seed=1), learnable(2, 1, seed=6), positive(5, seed=3), positive(5, seed=4)),
     (5,)),
    (bl.Affine, (learnable(2, 5, seed=1), learnable(2, seed=2)), (5,)),
    (bl.Affine, (learnable(2, 2, 5, seed=1), learnable(2, 2, seed=2)), (5,)),
]  # fmt: skip


@pytest.mark.parametrize("make, fields, event", MADE_OF)
def test_a_prox_has_a_derivative_in_all_that_its_term_is_made_of(make, fields, event):
    x = 2 * normal(2, *event, seed=9)
    x.requires_grad_()

    def prox(x, *fields):
        if make in (bl.Box, bl.HyperplaneBox):  # the bounds last, of either sign
            *rest, low, high = fields
            return make(*rest, -low.abs() - 0.5, high.abs() + 0.5).prox(x, 0.6)
        return make(*fields).prox(x, 0.6)

    assert gradcheck(prox, (x, *fields))
    assert gradgradcheck(prox, (x, *fields), check_fwd_over_rev=True)
