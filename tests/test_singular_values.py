"""Penalties of singular values, and a term beside a square: what the laws do not see."""

import gc

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

import bilevel as bl
from bilevel._svd import svd
from registry import Draw
from test_spectral import normal, rotated

pytestmark = pytest.mark.usefixtures("float64")

PENALTIES = [bl.MCP(0.5, 3.0), bl.LogSum(0.9), bl.SCAD(0.4), bl.SparseEnvelope(2)]


@pytest.mark.parametrize(
    "penalty, same",
    [
        (0.7 * bl.L1(), 0.7 * bl.Nuclear()),
        (0.7 * bl.Linf(), 0.7 * bl.SpectralNorm()),
        (bl.Box(-0.6, 0.6), bl.SpectralBall(0.6)),
        (bl.L1Ball(1.1), bl.NuclearBall(1.1)),
        (0.7 * bl.LeastSquares(), 0.7 * bl.LeastSquares()),
        (0.7 * bl.L2(), 0.7 * bl.L2()),  # Frobenius
    ],
    ids=lambda t: type(t).__name__,
)
def test_convex_penalties_are_the_terms_that_have_names(penalty, same):
    x, ours = normal(3, 4, 3).requires_grad_(), bl.SingularValues(penalty)
    torch.testing.assert_close(ours.prox(x, 0.4), same.prox(x, 0.4))
    inside = 0.99 * same.prox(x, 0.4)
    torch.testing.assert_close(ours.value(inside), same.value(inside))
    g = normal(3, 4, 3, seed=1)
    pulled = (torch.autograd.grad((g * t.prox(x, 0.4)).sum(), x)[0] for t in (ours, same))
    torch.testing.assert_close(*pulled)


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize(
    "x",
    [
        rotated(2.0, 2.0, 2.0, n=3),
        rotated(1.2, 1.2, 0.1, n=5),
        rotated(2.0, 0.0, 0.0, n=4).mT.contiguous(),
    ],
    ids=lambda x: f"{tuple(x.shape)}",
)
def test_repeated_singular_values_are_no_kink(penalty, x):
    """In the first derivative; the second is refused aloud."""
    term, x = bl.SingularValues(penalty), x.clone().requires_grad_()
    tied = isinstance(penalty, bl.SparseEnvelope) and x.shape[1:] != (3, 5)
    if not tied:  # the rank-2 part of three equal values is not unique
        assert gradcheck(lambda x: term.prox(x, 0.5), x)
    (first,) = torch.autograd.grad(term.prox(x, 0.5).square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="only where singular values differ and do not"):
        torch.autograd.grad(first.sum(), x)


def test_second_derivatives_in_the_matrix_and_the_penalty_at_once():
    w, k = (torch.tensor(v, requires_grad=True) for v in (0.4, 0.9))
    x = normal(1, 3, 2).requires_grad_()

    def prox(w, k, x):
        return bl.SingularValues(w * bl.LogSum(k)).prox(x, 0.7)

    assert gradgradcheck(prox, (w, k, x), fast_mode=True)

    def solution(w, k):
        data = bl.LeastSquares(x.detach())
        return bl.argmin(data + bl.SingularValues(w * bl.LogSum(k)), tol=1e-12)

    assert gradgradcheck(solution, (w, k), fast_mode=True)


def test_nothing_is_left_behind():
    """Nodes that hold their own output live until the collector comes."""
    w, y = torch.tensor(0.4, requires_grad=True), normal(1, 4, 3)

    def tensors():
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = tensors()
        for _ in range(3):
            x = bl.argmin(bl.LeastSquares(y) + w * bl.SingularValues(bl.MCP(0.5)))
            (slope,) = torch.autograd.grad(x.square().sum(), w, create_graph=True)
            torch.autograd.grad(slope, w)
        del x, slope
        assert tensors() == before
    finally:
        gc.enable()


def test_a_rank_is_found_without_bias():
    """MCP leaves the large singular values as they are, as the nuclear norm does not."""
    true = rotated(5.0, 3.0, 0.0, 0.0, n=6)
    data = true + 0.05 * normal(1, 4, 6)
    s = torch.linalg.svdvals(data)[0]
    for penalty in (bl.MCP(0.8, 3.0), bl.SCAD(0.5)):
        found = bl.solve(bl.LeastSquares(data) + bl.SingularValues(penalty)).x
        kept = torch.linalg.svdvals(found)[0]
        torch.testing.assert_close(kept[:2], s[:2])
        assert kept[2:].max() < 1e-9
    best = bl.solve(bl.LeastSquares(data) + bl.SingularValues(bl.SparseEnvelope(2))).x
    u, s, vh = torch.linalg.svd(data, full_matrices=False)
    eckart_young = (u[..., :2] * s[:, None, :2]) @ vh[:, :2]
    torch.testing.assert_close(best, eckart_young, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "penalty, shape, message",
    [
        (bl.Simplex(), (2, 3, 4), "SingularValues needs a penalty that is the same for x, -x and"),
        (
            bl.Absolute(torch.rand(3, 1).double()),
            (2, 3, 4),
            "and Absolute is not. Leave out a target",
        ),
        (bl.SparseEnvelope(1), (2, 2, 3, 4), r"one matrix a sample, \(B, m, n\), got \(2, 2, 3, 4"),
    ],
    ids=["signs", "order", "channels"],
)
def test_what_is_no_penalty_of_singular_values(penalty, shape, message):
    with pytest.raises(ValueError, match=message):
        bl.argmin(bl.LeastSquares(normal(*shape)) + bl.SingularValues(penalty))


def test_the_envelope_has_a_derivative_where_no_entry_meets_the_level():
    """Seen to be NaN, in one of 250 random points."""
    x = torch.tensor([[0.3923849483710577, -0.9736997750483931, -0.049081597085637585]])
    x = x.double().requires_grad_()
    assert gradcheck(lambda x: bl.SparseEnvelope(1).prox(x, 0.7 / 1.7), x)
    assert gradgradcheck(lambda x: bl.SparseEnvelope(1).prox(x, 0.7 / 1.7), x)


def test_anchored_is_the_sum():
    draw = Draw(event=(5,))
    y, target, strength = draw.x(), draw.x().requires_grad_(), torch.tensor(0.7, requires_grad=True)

    def anchored(target, strength):
        return bl.argmin(bl.LeastSquares(y) + bl.Anchored(0.3 * bl.L1(), target, strength))

    whole = bl.LeastSquares(y) + 0.3 * bl.L1() + 0.7 * bl.LeastSquares(target)
    torch.testing.assert_close(anchored(target, strength), bl.argmin(whole), rtol=0, atol=1e-7)
    assert gradcheck(anchored, (target, strength))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 3), (2, 1, 4, 3)], ids=str)
def test_they_come_where_lapack_fails(shape, monkeypatch):
    once = torch.linalg.svd

    def seldom(matrix, **options):
        if matrix.ndim > 2 or matrix.shape[0] > matrix.shape[1]:
            raise torch.linalg.LinAlgError("linalg.svd: failed to converge")
        return once(matrix, **options)

    x, g = normal(*shape).requires_grad_(), normal(*shape, seed=1)
    expected = once(x, full_matrices=False).S
    monkeypatch.setattr(torch.linalg, "svd", seldom)
    u, s, vh = svd(x)
    torch.testing.assert_close(s, expected)
    torch.testing.assert_close(u * s[..., None, :] @ vh, x)
    (slope,) = torch.autograd.grad((g * (u @ vh)).sum(), x)
    d, step = normal(*shape, seed=2), 1e-6
    moved = [(g * (u @ vh)).sum() for u, _, vh in (svd(x + step * d), svd(x - step * d))]
    torch.testing.assert_close((slope * d).sum(), (moved[0] - moved[1]) / (2 * step))
