"""What the terms of the catalogue refuse, and what they say."""

import pytest
import torch

import bilevel as bl

pytestmark = pytest.mark.usefixtures("float64")

Y = torch.ones(2, 3, dtype=torch.float64)
SKEW = torch.tensor([[1.0, 2.0, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 1])
D = bl.Gradient(dims=1)

BUILT = [  # at once
    (lambda: bl.GroupL2(torch.tensor([0.0, 1.0])), "whole numbers from 0 on .* got torch.float64"),
    (lambda: bl.GroupL2(torch.tensor([0, -1])), "GroupL2 needs a label for each coordinate"),
    (lambda: bl.GroupL2([0, 1]), "got list"),
    (lambda: bl.Groups(torch.tensor([[0, 5]]), 5), r"indices from 0 to 5 for 5 coordinates"),
    (
        lambda: bl.Groups(torch.tensor([0, 1]), 5),
        r"a tensor \(groups, size\), got torch.int64 of sha",
    ),
    (lambda: bl.MoreauEnvelope(bl.TotalVariation(), 0.1), "needs a term with a prox, got TotalVar"),
    (lambda: bl.Orthogonal(bl.Logistic(Y), D), "Orthogonal needs terms with a prox, got Logistic"),
    (lambda: bl.SingularValues(bl.Logistic(Y)), "SingularValues needs terms with a prox, got Log"),
    (lambda: bl.Anchored(bl.TotalVariation(), Y), "Anchored needs terms with a prox, got TotalVar"),
    (
        lambda: bl.Separable(bl.L1(), bl.TotalVariation()),
        "Separable needs terms with a prox, got To",
    ),
    (
        lambda: bl.Separable(bl.L1(), sizes=(1, 2)),
        r"a size >= 1 for each of its 1 terms, got sizes",
    ),
]

SOLVED = [  # at the boundary
    (lambda: bl.Hinge(2 * Y), "Hinge.labels must be -1 or 1"),
    (lambda: bl.SquaredHinge(0 * Y), "SquaredHinge.labels must be -1 or 1"),
    (lambda: bl.KullbackLeibler(-Y), "KullbackLeibler.counts = -1: counts are >= 0"),
    (lambda: bl.KullbackLeibler(Y, -0.1), "background = -0.1: a background must be >= 0"),
    (lambda: bl.Quantile(1.5, Y), "Quantile.level = 1.5: a level lies between 0 and 1"),
    (lambda: bl.MCP(-0.1), "MCP.threshold = -0.1: a threshold must be >= 0"),
    (lambda: bl.MCP(0.1, 0.0), "MCP.width = 0: a width must be > 0"),
    (lambda: bl.SCAD(0.1, 1.0), "SCAD.width = 1: it must be > 1"),
    (lambda: bl.LogSum(0.0), "LogSum.scale = 0: a scale must be > 0"),
    (lambda: bl.TruncatedQuadratic(0.0), "height = 0: a height must be > 0"),
    (lambda: bl.MoreauEnvelope(bl.L1(), 0.0), "smoothing = 0: a smoothing must be > 0"),
    (lambda: bl.MoreauEnvelope(-1 * bl.L1(), 0.1), "L1.weight = -1: a weight must be >= 0"),
    (
        lambda: bl.MoreauEnvelope(bl.MCP(0.1, 2.0), 3.0),
        "smooth for a smoothing below 2, 1 over its",
    ),
    (
        lambda: bl.MoreauEnvelope(bl.L0(), 0.1),
        "MoreauEnvelope of L0 is smooth for a smoothing below 0",
    ),
    (lambda: bl.MoreauEnvelope(bl.L1(), Y), r"smoothing has shape \(2, 3\), which does not broad"),
    (lambda: bl.CrossEntropy(Y), r"target must be probabilities, .* sums up to 2 off 1"),
    (lambda: bl.Quadratic(SKEW), "Quadratic.Q is not symmetric: .* differ by up to 2"),
    (lambda: bl.Quadratic(SKEW[:2]), r"Quadratic.Q has shape \(2, 3\) at x of shape \(2, 3\)"),
    (lambda: bl.GroupL2(LABELS[:2]), r"GroupL2.labels has shape \(2,\) at x of shape \(2, 3\)"),
    (lambda: Y[:1, :1].expand(1, 3) * bl.GroupL2(LABELS), "GroupL2.weight has shape"),
    (
        lambda: bl.L21() @ bl.Groups(torch.tensor([[0, 1]]), 4),
        r"needs x of shape \(B, 4\), got \(2",
    ),
    (lambda: bl.Anchored(bl.L1(), Y, -1.0), "Anchored.strength = -1: a strength must be >= 0"),
    (lambda: bl.Anchored(bl.L1(), Y[:, :2]), r"Anchored.target has shape \(2, 2\)"),
    (lambda: bl.Anchored(-1 * bl.L1(), Y), "L1.weight = -1: a weight"),
    (
        lambda: bl.SingularValues(bl.L1()),
        r"matrices are the last two dims .* \(B, ..., m, n\), got",
    ),
    (lambda: bl.Orthogonal(bl.L1(), bl.Matrix(SKEW)), r"needs Q Q\* = 1 I, got an operator Matrix"),
    (lambda: bl.Separable(bl.L1()), r"parts of sizes \(1,\), 1 together, at x of shape \(2, 3\)"),
    (lambda: bl.Separable(bl.L1(), -1 * bl.L2(), sizes=(1, 2)), "L2.weight = -1: a weight"),
    (lambda: bl.SparseL21(0.5, dim=0), "SparseL21 has dim=0"),
    (lambda: bl.LogSumExp(dim=2), "LogSumExp has dim=2"),
]


@pytest.mark.parametrize("make, message", BUILT, ids=[m for _, m in BUILT])
def test_what_cannot_be_built(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


@pytest.mark.parametrize("make, message", SOLVED, ids=[m for _, m in SOLVED])
def test_what_cannot_be_solved(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        bl.argmin(bl.LeastSquares(Y) + make())


def test_integer_labels_are_no_reason_to_refuse_a_dtype():
    for dtype in (torch.float32, torch.float64):
        x = bl.argmin(bl.LeastSquares(Y.to(dtype)) + 0.1 * bl.GroupL2(LABELS))
        assert x.dtype == dtype
        x = bl.argmin(bl.LeastSquares(Y.to(dtype)) + bl.L21() @ bl.Groups(LABELS[None], 3))
        assert x.dtype == dtype
