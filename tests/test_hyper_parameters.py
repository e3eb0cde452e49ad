"""Hyper-parameters of linear models: gradients against central differences of solutions."""

import pytest
import torch
from torch.nn.functional import one_hot

import bilevel as bl

DOUBLE = torch.float64
FOLDS, ROWS, FEATURES, CLASSES = 2, 12, 6, 3


def draw(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=DOUBLE)


A, HELD = bl.Matrix(draw(FOLDS, ROWS, FEATURES)), bl.Matrix(draw(FOLDS, 5, FEATURES, seed=1))
TARGET = A(torch.tensor([[2.0, -1, 1, 0, 0, 0]], dtype=DOUBLE).expand(FOLDS, -1))
TARGET = TARGET + 0.5 * draw(FOLDS, ROWS, seed=2)
LABELS = TARGET.sign()
CLASS = one_hot(draw(FOLDS, ROWS, CLASSES, seed=3).argmax(-1), CLASSES).to(DOUBLE)
GROUPS, RIDGE = torch.arange(FEATURES) // 2, bl.LeastSquares()

MODELS = {  # (hyper-parameters) -> an energy; where they are
    "lasso": (lambda w: bl.LeastSquares(TARGET) @ A + w * bl.L1(), [1.0]),
    "lasso, radius": (lambda r: bl.LeastSquares(TARGET) @ A + bl.L1Ball(r), [1.5]),
    "group lasso": (lambda w: bl.LeastSquares(TARGET) @ A + w * bl.GroupL2(GROUPS), [2.0]),
    "elastic net": (lambda w, v: bl.LeastSquares(TARGET) @ A + w * bl.L1() + v * RIDGE, [1.0, 0.5]),
    "Huber": (lambda w, d: bl.Huber(d, TARGET) @ A + w * RIDGE, [1.0, 0.4]),
    "quantile": (lambda w, q: bl.Quantile(q, TARGET) @ A + w * RIDGE, [1.0, 0.7]),
    "support vectors": (lambda w: bl.Hinge(LABELS) @ A + w * RIDGE, [1.0]),
    "logistic, L1": (lambda w: bl.Logistic(LABELS) @ A + w * bl.L1(), [0.5]),
    "multiclass": (lambda w: bl.CrossEntropy(CLASS) @ A + w * RIDGE, [1.0]),
}


def solved(name, *hyper):
    classes = (CLASSES,) if name == "multiclass" else ()
    x0 = torch.zeros(FOLDS, FEATURES, *classes, dtype=DOUBLE)
    return bl.argmin(MODELS[name][0](*hyper), x0=x0, tol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_folds_as_a_batch(name):
    """The gradient of the cross-validated error in each hyper-parameter."""
    hyper = torch.tensor(MODELS[name][1], dtype=DOUBLE, requires_grad=True)

    def criterion(values):
        return HELD(solved(name, *values)).sin().mean()

    (gradient,) = torch.autograd.grad(criterion(hyper), hyper)
    steps = 1e-4 * torch.eye(len(hyper), dtype=DOUBLE)
    # of solutions whose residual, not only their gap, is small: as for a gradient
    ends = [(criterion(hyper + s) - criterion(hyper - s)).detach() for s in steps]
    assert gradient.abs().min() > 1e-5
    torch.testing.assert_close(gradient, torch.stack(ends) / 2e-4, rtol=1e-5, atol=1e-9)


def test_two_forms_of_the_lasso():
    """At r = |x(w)|_1 the lasso with a radius has the solution of that with the weight w."""
    w = torch.tensor([[0.3], [2.0]], dtype=DOUBLE)  # another for each fold
    penalised = solved("lasso", w)
    radius = penalised.abs().sum(1, keepdim=True)
    torch.testing.assert_close(solved("lasso, radius", radius), penalised, rtol=1e-7, atol=1e-8)


def test_stein():
    """SURE of the fit, by differences and a fixed draw: its gradient is that of its formula."""

    def risk(w):
        def fitted(y):
            return A(bl.argmin(bl.LeastSquares(y) @ A + w * bl.GroupL2(GROUPS), tol=1e-12))

        generator = torch.Generator().manual_seed(0)
        return bl.sure(fitted, TARGET, 0.5, generator=generator).mean()

    w = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    (gradient,) = torch.autograd.grad(risk(w), w)
    with torch.no_grad():
        difference = (risk(w + 1e-5) - risk(w - 1e-5)) / 2e-5
    torch.testing.assert_close(gradient, difference, rtol=1e-5, atol=1e-8)
