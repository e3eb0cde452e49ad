"""gsure: exact where the traces are known, unbiased for the error in what the operator sees."""

import pytest
import torch
from torch import Tensor

import bilevel as bl
from test_minimum import draw
from test_sure import seeded

SIGMA = 0.5


def deblurred(A: Tensor, w):
    """min 1/2 |Ax - y|^2 + w |x|_1, of whose energy A may be wide."""
    return lambda y: bl.argmin(
        bl.LeastSquares(y) @ bl.Matrix(A) + w * bl.L1() + 0.1 * bl.LeastSquares(),
        x0=torch.zeros(len(y), A.shape[1], dtype=y.dtype),
    )


def conditioned(m: int, n: int) -> Tensor:
    """Singular values between 0.5 and 2; of rank 3 where m = n."""
    u, _, vh = torch.linalg.svd(draw(m, n, seed=7), full_matrices=False)
    s = torch.linspace(0.5, 2, len(vh), dtype=u.dtype)
    return (u * (s * (torch.arange(len(s)) < 3) if m == n else s)) @ vh


@pytest.mark.parametrize("step", [None, 0])
@pytest.mark.parametrize("m, n", [(4, 6), (6, 4), (5, 5)])
def test_a_linear_estimate_on_average_over_probes(m, n, step):
    """|A^+ (AHy - y)|^2 + sigma^2 (2 tr(A^+* H) - tr((AA*)^+)), over n."""
    A, H, y = conditioned(m, n), draw(n, m, seed=1), draw(1, m, seed=2)
    back = torch.linalg.pinv(A)
    off = (y @ H.mT @ A.mT - y) @ back.mT
    exact = (off.square().sum() + SIGMA**2 * (2 * back.mT @ H - back.mT @ back).trace()) / n
    many = y.expand(4000, m)  # a probe each
    got = bl.gsure(lambda y: y @ H.mT, many, SIGMA, bl.Matrix(A), generator=seeded(), step=step)
    assert (got.mean() - exact).abs() < 4 * got.std() / 4000**0.5 < 0.1


@pytest.mark.parametrize("step", [None, 0])
def test_pixels_that_are_seen_exactly(step):
    """Of a diagonal random signs see the trace without error; what is not seen plays no part."""
    y, d = draw(2, 6), draw(6, seed=1)
    seen = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 2.0]).double()
    got = bl.gsure(lambda y: d * y, y, SIGMA, bl.Mask(seen), step=step)
    inverse = torch.where(seen > 0, 1 / seen, 0.0)
    off = inverse * (seen * d * y - y)
    trace = (2 * inverse * d - inverse**2).sum()
    torch.testing.assert_close(got, (off.square().sum(1) + SIGMA**2 * trace) / 6)


@pytest.mark.parametrize("m, n", [(6, 10), (10, 6)])
def test_it_is_unbiased(m, n):
    """The mean over draws of the noise is that of the true error in what A sees, within 4 standard
    errors of the difference."""
    A, clean = conditioned(m, n), 2 * draw(1, n, seed=3)
    y = clean @ A.mT + SIGMA * draw(2000, m, seed=5)
    seen = torch.linalg.pinv(A) @ A
    model = deblurred(A, 0.4)
    error = ((model(y) - clean) @ seen).square().mean(1)
    told = bl.gsure(model, y, SIGMA, bl.Matrix(A), generator=seeded(), step=0)
    difference = told - error
    assert difference.mean().abs() < 4 * difference.std() / 2000**0.5 < 0.2 * error.mean()


def test_its_gradient_is_that_of_its_values():
    A = conditioned(6, 10)
    y, operator = draw(4, 6, seed=1), bl.Matrix(A)

    def value(w) -> Tensor:
        return bl.gsure(deblurred(A, w), y, SIGMA, operator, generator=seeded()).sum()

    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    with bl.accuracy(1e-13):
        (got,) = torch.autograd.grad(value(w), w)
        ends = [value(w.detach() + h) for h in (1e-5, -1e-5)]
    assert float(got) == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


def test_images_through_an_operator_that_is_no_matrix():
    """Of the means of blocks of 2 x 2, A A* = 1/4: 4 times the prediction risk over 4 times as
    many pixels."""
    y, means = draw(2, 1, 4, 4), bl.Downsample(2)
    model = lambda y: torch.nn.functional.interpolate(y, scale_factor=2.0) * 0.8  # noqa: E731
    got = bl.gsure(model, y, SIGMA, means, generator=seeded())
    prediction = bl.sure(lambda y: means(model(y)), y, SIGMA, generator=seeded())
    scale = float(means(means.adjoint(y))[0, 0, 0, 0] / y[0, 0, 0, 0])
    torch.testing.assert_close(got, prediction / scale / 4)


def test_single_precision_and_an_empty_batch():
    A, y = conditioned(4, 6).float(), draw(2, 4).float()
    model = lambda y: y @ A  # noqa: E731
    got = bl.gsure(model, y, SIGMA, bl.Matrix(A))
    assert got.shape == (2,) and got.dtype == torch.float32
    assert bl.gsure(model, y[:0], SIGMA, bl.Matrix(A)).shape == (0,)


WRONG = [
    (lambda y, A: bl.gsure(lambda y: y @ A, y, 1.0, bl.Identity()), ValueError, r"got \(2, 6\)"),
    (lambda y, A: bl.gsure(lambda y: [y], y, 1.0, bl.Matrix(A)), TypeError, "a tensor, got list"),
    (lambda y, A: bl.gsure(lambda y: y @ A, y, 0.0, bl.Matrix(A)), ValueError, "positive"),
]  # fmt: skip


@pytest.mark.parametrize("call, kind, message", WRONG)
def test_wrong_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call(draw(2, 4), conditioned(4, 6))
