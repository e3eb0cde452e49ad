"""sure: exact where the divergence is known, unbiased, and good enough to learn a weight from."""

import pytest
import torch
from torch import Tensor

import bilevel as bl
from test_minimum import draw


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def exact(x: Tensor, y: Tensor, sigma: float, divergence) -> Tensor:
    n = y.shape[1:].numel()
    return (x - y).square().flatten(1).mean(1) - sigma**2 + 2 * sigma**2 / n * divergence


def lines(w):
    return lambda y: bl.argmin(bl.LeastSquares(y) + w * bl.TotalVariation(dims=1))


def soft(w):
    return lambda y: bl.argmin(bl.LeastSquares(y) + w * bl.L1())


@pytest.mark.parametrize("step", [None, 0, 0.3])
def test_a_diagonal_model_exactly(step):
    """Random signs see the trace of a diagonal without error."""
    y, d = draw(3, 2, 5), draw(2, 5, seed=1)
    got = bl.sure(lambda y: d * y + 1.0, y, 0.5, step=step)
    torch.testing.assert_close(got, exact(d * y + 1.0, y, 0.5, d.sum()))


@pytest.mark.parametrize("step", [None, 0])
def test_a_linear_model_on_average_over_probes(step):
    """Over all 2^4 signs the mean of <v, Av> is the trace; 4000 draws come near."""
    y, A = draw(2, 4), draw(4, 4, seed=1)
    got = bl.sure(lambda y: y @ A.mT, y, 0.5, probes=4000, generator=seeded(), step=step)
    off = A + A.mT - 2 * A.diag().diag()
    deviation = float(off.square().sum() / 2) ** 0.5 * 2 * 0.25 / 4 / 4000**0.5
    assert (got - exact(y @ A.mT, y, 0.5, A.trace())).abs().max() < 4 * deviation


def test_ridge_through_its_solution():
    """(A*A + w)^-1 A*A, a solution as a model."""
    A, y = draw(6, 6), draw(2, 6, seed=1)

    def model(y):
        energy = bl.LeastSquares(y) @ bl.Matrix(A) + 0.7 * bl.LeastSquares()
        return bl.argmin(energy, solver=bl.Newton()) @ A.mT

    hat = A @ torch.linalg.solve(A.mT @ A + 0.7 * torch.eye(6).double(), A.mT)
    v = torch.randint(0, 2, y.shape, generator=seeded()).double() * 2 - 1
    expected = exact(y @ hat.mT, y, 0.4, ((v @ hat.mT) * v).sum(1))
    for step in (None, 0):
        got = bl.sure(model, y, 0.4, generator=seeded(), step=step)
        torch.testing.assert_close(got, expected)


def test_soft_threshold_counts_its_nonzeros():
    y = 2 * draw(3, 20)
    x = y.sign() * (y.abs() - 1).clamp(min=0)
    got = bl.sure(soft(1.0), y, 0.8, step=0)
    torch.testing.assert_close(got, exact(x, y, 0.8, (x != 0).sum(1)))


def test_total_variation_counts_its_segments():
    y = draw(2, 30)
    count = bl.TotalVariation1D(weight=0.8).degrees_of_freedom(y)
    got = bl.sure(lines(0.8), y, 1.0, probes=300, generator=seeded(), step=0)
    expected = exact(lines(0.8)(y), y, 1.0, count)
    # <v, Jv> of averages over segments: variance 2 (segments - sum of 1 / lengths) < 2 segments
    deviation = (2 * count / 300).sqrt() * 2 / 30
    assert ((got - expected).abs() < 4 * deviation).all()


@pytest.mark.parametrize("step", [None, 0])
def test_it_is_unbiased_for_total_variation(step):
    """The mean over draws of the noise is that of the true error: within 4 standard errors for the
    derivative, and a bias of some percent for differences of so few pixels."""
    clean = torch.tensor([0.0, 1.0, 0.5, 2.0], dtype=torch.float64).repeat_interleave(10)
    y = clean + 0.5 * draw(2000, 40, seed=5)
    model = lines(0.6)
    error = (model(y) - clean).square().mean(1)
    difference = bl.sure(model, y, 0.5, generator=seeded(), step=step) - error
    bias = 0.0 if step == 0 else 0.08 * error.mean()
    assert difference.mean().abs() < 4 * difference.std() / 2000**0.5 + bias


def test_a_noise_level_for_each_sample():
    y, sigma = draw(3, 8), torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    got = bl.sure(soft(0.3), y, sigma, generator=seeded())
    v = torch.randint(0, 2, y.shape, generator=seeded()).double() * 2 - 1
    step = 0.3 * sigma[:, None]
    divergence = ((soft(0.3)(y + step * v) - soft(0.3)(y)) / step * v).sum(1)
    expected = (soft(0.3)(y) - y).square().mean(1) - sigma**2 + 2 * sigma**2 / 8 * divergence
    torch.testing.assert_close(got, expected)


def test_its_gradient_is_that_of_its_values():
    y = draw(4, 30)
    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(bl.sure(lines(w), y, 0.5, generator=seeded()).sum(), w)
    ends = [bl.sure(lines(w.detach() + h), y, 0.5, generator=seeded()).sum() for h in (1e-6, -1e-6)]
    assert float(got) == pytest.approx(float(ends[0] - ends[1]) / 2e-6, rel=1e-5)


def test_the_derivative_s_gradient_of_a_smooth_model():
    """step=0 is for such: the divergence moves with the parameter, in second order."""
    y = draw(2, 6)

    def model(w):
        return lambda y: bl.argmin(bl.Huber(0.5, y) + w * bl.LeastSquares(), tol=1e-12)

    w = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value = lambda w: bl.sure(model(w), y, 0.5, generator=seeded(), step=0).sum()  # noqa: E731
    (got,) = torch.autograd.grad(value(w), w)
    ends = [value(w.detach() + h) for h in (1e-5, -1e-5)]
    assert float(got) == pytest.approx(float((ends[0] - ends[1]).detach()) / 2e-5, rel=1e-6)


def test_the_derivative_does_not_move_with_the_weight_of_total_variation():
    """The trap that the default step avoids: without the jumps less weight is always better."""
    y = torch.zeros(1, 200).double() + 0.5 * draw(1, 200, seed=3)
    w = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)  # far too little for a constant
    slope = {
        step: float(torch.autograd.grad(
            bl.sure(lines(w), y, 0.5, probes=8, generator=seeded(), step=step).sum(), w
        )[0])
        for step in (None, 0)
    }  # fmt: skip
    assert slope[None] < 0 < slope[0]


def photograph() -> tuple[Tensor, Tensor]:
    data = pytest.importorskip("skimage.data")
    clean = torch.from_numpy(data.camera()[100:148, 180:228] / 255.0)[None, None]
    return clean, clean + 25 / 255 * draw(1, 1, 48, 48, seed=2)


def test_a_weight_learned_without_the_clean_photograph():
    """Within 0.1 dB of the best weight of all."""
    clean, noisy = photograph()
    psnr = lambda x: float(-10 * (x - clean).square().mean().log10())  # noqa: E731
    diff = bl.FixedPoint(bl.BiCGStab(tol=1e-2), order=1)
    model = bl.layers.TVDenoise(0.04, tol=1e-4, diff=diff, on_fail="warn").double()
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=8, line_search_fn="strong_wolfe", tolerance_grad=1e-3
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        risk = bl.sure(model, noisy, 25 / 255, generator=seeded()).mean() / (25 / 255) ** 2
        risk.backward()
        return risk.detach()

    optimizer.step(loss)
    weights = [0.03 * 1.15**k for k in range(16)]
    with torch.no_grad():
        found = psnr(model(noisy))
        energies = (bl.LeastSquares(noisy) + w * bl.TotalVariation() for w in weights)
        best = max(psnr(bl.solve(energy, tol=1e-4).x) for energy in energies)
    assert psnr(noisy) + 4 < best < found + 0.1


# Input

WRONG = [
    (lambda y: bl.sure(lambda y: y, y[0], 1.0), ValueError, r"of shape \(B, \*event\), got \(6,\)"),
    (lambda y: bl.sure(lambda y: y, y.long(), 1.0), ValueError, "real noisy data"),
    (lambda y: bl.sure(lambda y: y, y[:, :0], 1.0), ValueError, "each sample is empty"),
    (lambda y: bl.sure(lambda y: y, y, 0.0), ValueError, "positive and finite"),
    (lambda y: bl.sure(lambda y: y, y, -y[:, 0].abs()), ValueError, "positive and finite"),
    (lambda y: bl.sure(lambda y: y, y, torch.ones(3)), ValueError, r"one a sample, \(2,\)"),
    (lambda y: bl.sure(lambda y: y, y, "1"), TypeError, "number or a tensor, got str"),
    (lambda y: bl.sure(lambda y: y, y, 1.0, probes=0), ValueError, "at least 1, got 0"),
    (lambda y: bl.sure(lambda y: y, y, 1.0, step=-1.0), ValueError, "must be a number > 0"),
    (lambda y: bl.sure(lambda y: y[:, :3], y, 1.0), ValueError, r"got \(2, 3\): the noise"),
    (lambda y: bl.sure(lambda y: y.detach(), y, 1.0, step=0), ValueError, "Leave step out"),
]  # fmt: skip


@pytest.mark.parametrize("call, kind, message", WRONG)
def test_wrong_input(call, kind, message):
    with pytest.raises(kind, match=message):
        call(draw(2, 6))


def test_no_gradient_single_precision_and_an_empty_batch():
    y = draw(2, 6).float()
    with torch.no_grad():
        for step in (None, 0):
            got = bl.sure(soft(0.3), y, 0.5, step=step)
            assert got.shape == (2,) and got.dtype == torch.float32 and not got.requires_grad
    assert bl.sure(lambda y: y / 2, y[:0], 0.5).shape == (0,)
