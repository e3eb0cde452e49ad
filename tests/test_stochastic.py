"""Stochastic bilevel methods, against hypergradients at exact solutions."""

import pytest
import torch
from torch import nn

import bilevel as bl
from bilevel.learning import ALSET, SABA, SOBA, learn_stochastic
from bilevel.learning.draws import Draws, Memory, cut

FEATURES, CPU = 6, torch.device("cpu")


class Penalty(nn.Module):
    """Least squares or a logistic loss of a linear model, plus a ridge of learned weight; or, if
    sparse, a fixed one and an L1 norm of learned weight."""

    def __init__(self, kind, start=-1.0, dtype=torch.float64):
        super().__init__()
        self.kind = kind
        self.train, self.validation = samples(22, SEEDS[kind]), samples(20, SEEDS[kind] + 1)
        self.w = nn.Parameter(torch.full((1,), start, dtype=dtype))

    def energy(self, batch):
        a, b = batch["a"], batch["b"][None]
        share = 1 / len(a)
        if self.kind == "logistic":
            fit = bl.Logistic(b.sign(), weight=share) @ bl.Matrix(a)
        else:
            fit = bl.LeastSquares(b, weight=share) @ bl.Matrix(a)
        ridge, weight = bl.LeastSquares(0 * a[:1]), self.w.exp()
        return (
            fit + 0.1 * ridge + weight * bl.L1() if self.kind == "sparse" else fit + weight * ridge
        )

    def loss(self, x, batch):
        scores = batch["a"] @ x[0]
        if self.kind == "logistic":
            return nn.functional.softplus(-batch["b"].sign() * scores).mean()
        return (scores - batch["b"]).square().mean() / 2


def samples(n, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, FEATURES, generator=generator, dtype=torch.float64)
    truth = torch.tensor([1.0, -1.0, 0.5, 0.0, 0.0, 0.0], dtype=torch.float64)
    b = a @ truth + 2 * torch.randn(n, generator=generator, dtype=torch.float64)
    return [{"a": row.to(dtype), "b": value.to(dtype)} for row, value in zip(a, b, strict=True)]


SEEDS = {"quadratic": 0, "logistic": 0, "sparse": 10}  # with optima inside, and not at kinks
SABAS = {"quadratic": SABA(0.05, 0.2), "logistic": SABA(0.2, 0.5), "sparse": SABA(0.05, 0.02)}
ZERO = torch.zeros(1, FEATURES, dtype=torch.float64)


def whole(data):
    return cut(data, len(data), 0, CPU)[0]


def exact(model):
    """The solution, the loss and its gradient, with every sample."""
    energy = model.energy(whole(model.train))
    x = bl.argmin(energy, x0=ZERO, tol=1e-12, diff=bl.Implicit())
    loss = model.loss(x, whole(model.validation))
    return x.detach(), loss, torch.autograd.grad(loss, model.w)[0]


def optimum(kind):
    model = Penalty(kind)
    optimizer = torch.optim.LBFGS([model.w], max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        _, loss, model.w.grad = exact(model)
        return loss

    optimizer.step(closure)
    return exact(model)[1].detach()


def run(model, method, steps, batch_size=5, **options):
    return learn_stochastic(
        model, model.train, model.validation, Penalty.energy, Penalty.loss, ZERO,
        method=method, steps=steps, batch_size=batch_size, **options,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["quadratic", "logistic", "sparse"])
def test_the_direction_at_rest_is_the_hypergradient(kind):
    model = Penalty(kind)
    x, _, gradient = exact(model)
    assert kind != "sparse" or 0 < int((x == 0).sum()) < FEATURES
    batches = [whole(model.train)], [whole(model.validation)]
    draw = Draws(model, Penalty.energy, Penalty.loss, *batches, memory=False, seed=0)
    v = torch.zeros_like(x)
    for _ in range(500):
        following, v, direction = draw.directions(x, v, 0.2)
    torch.testing.assert_close(following, x, rtol=0, atol=1e-8)
    torch.testing.assert_close(direction, gradient, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("kind", ["quadratic", "logistic", "sparse"])
def test_saba_ends_at_the_exact_optimum(kind):
    model = Penalty(kind)
    before = exact(model)[1]
    result = run(model, SABAS[kind], 1500)
    x, after, _ = exact(model)
    best = optimum(kind)
    assert after - best < 1e-6 * (before - best)
    torch.testing.assert_close(result.x, x, rtol=0, atol=1e-4)
    assert kind != "sparse" or ((result.x == 0) == (x == 0)).all()


@pytest.mark.parametrize(
    ("kind", "method", "steps"),
    [
        ("quadratic", SOBA(0.05, 0.1), 1500),
        ("sparse", SOBA(0.05, 0.02), 1500),
        ("quadratic", ALSET(0.1, 1.0), 100),
        ("sparse", ALSET(0.1, 0.5), 100),
    ],
)
def test_without_memory_the_loss_comes_near_the_optimum(kind, method, steps):
    model = Penalty(kind)
    before = exact(model)[1]
    run(model, method, steps, batch_size=11)
    best = optimum(kind)
    assert exact(model)[1] - best < 0.2 * (before - best)


def test_the_memory_is_unbiased_and_forgets_the_noise():
    shares = torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64)
    directions = torch.tensor([[1.0], [2.0], [-3.0]], dtype=torch.float64)
    memory = Memory(shares)
    for k in (0, 2):  # the batch 1 was not drawn yet
        memory(k, directions[k] + 1)
    mean, rows = memory.mean, dict(memory.rows)
    estimates = []
    for k in range(3):
        memory.mean, memory.rows = mean, dict(rows)
        estimates.append(memory(k, directions[k]))
    torch.testing.assert_close(shares @ torch.stack(estimates), shares @ directions)
    for k in range(3):
        memory(k, directions[k])
    for k in range(3):
        torch.testing.assert_close(memory(k, directions[k]), shares @ directions)


def test_the_seed_alone_decides():
    models = [Penalty("sparse") for _ in range(3)]
    first, again, other = (
        run(m, SOBA(0.1, 0.1), 20, seed=seed) for m, seed in zip(models, (3, 3, 4), strict=True)
    )
    assert torch.equal(first.x, again.x) and torch.equal(models[0].w, models[1].w)
    assert not torch.equal(first.x, other.x)


def test_float32_stays():
    data = samples(10, 0, torch.float32)
    model = Penalty("sparse", dtype=torch.float32)
    result = learn_stochastic(
        model, data, data, Penalty.energy, Penalty.loss, ZERO.float(),
        method=SABA(0.05, 0.01), steps=5, batch_size=4,
    )  # fmt: skip
    assert result.x.dtype == model.w.dtype == torch.float32


def test_divergence_is_told_and_the_model_stays_finite():
    model = Penalty("quadratic")
    with pytest.raises(bl.NotConverged, match="smaller step_size"):
        run(model, SABA(50.0, 1e-3), 2000)
    assert model.w.isfinite().all()


@pytest.mark.parametrize("method", [SOBA, SABA, ALSET])
@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_step_sizes_are_positive(method, size):
    with pytest.raises(ValueError, match=r"needs step_size > 0"):
        method(size, 1.0)
    with pytest.raises(ValueError, match=r"needs outer_step_size > 0"):
        method(1.0, size)


def test_wrong_input_is_told():
    model, method = Penalty("quadratic"), SABA(0.1, 0.1)
    with pytest.raises(ValueError, match="all samples share one x"):
        learn_stochastic(
            model, model.train, model.validation, Penalty.energy, Penalty.loss, ZERO.expand(3, -1),
            method=method, steps=1, batch_size=5,
        )  # fmt: skip
    for shape, message in (((3,), "one number, got shape"), ((), "does not depend on the param")):
        with pytest.raises(ValueError, match=message):
            loss = lambda *_, s=shape: torch.ones(s)  # noqa: E731
            learn_stochastic(
                model, model.train, model.validation, Penalty.energy, loss, ZERO,
                method=method, steps=1, batch_size=5,
            )  # fmt: skip
    with pytest.raises(TypeError, match=r"needs a method, SABA\(0.1, 0.1\) say, got <class"):
        run(model, SABA, 1)
    with pytest.raises(ValueError, match="does not fit 22 samples"):
        run(model, method, 1, batch_size=50)
    for steps in (-1, 2.5):
        with pytest.raises(ValueError, match=f"steps={steps}: pass the number of steps"):
            run(model, method, steps)
    with pytest.raises(ValueError, match="no parameter that requires a gradient"):
        run(model.requires_grad_(False), method, 1)
    with pytest.raises(ValueError, match="inner, terms >= 1"):
        ALSET(0.1, 0.1, terms=0)
    for energy in (bl.L1(), bl.LeastSquares(ZERO) + bl.TotalVariation(dims=1) + bl.L1()):
        with pytest.raises(ValueError, match="needs a smooth term"):
            learn_stochastic(
                Penalty("quadratic"), model.train, model.validation,
                lambda model, batch, e=energy: e, Penalty.loss, ZERO, method=method,
                steps=1, batch_size=5,
            )  # fmt: skip
