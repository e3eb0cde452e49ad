r"""
One function for the hyper-parameters of nine linear models
===========================================================

Lasso, group lasso, Huber and quantile regression, support vector machine, logistic regression: each
has a weight that data should choose, some have two. A grid needs a new plan for each. The gradient
of a held-out loss does not ask which model it is: here the same few lines tune all of them, with
five folds of cross-validation solved as one batch.
"""

# %%
# Data and folds
# --------------
#
# Two thirds of the rows choose the hyper-parameters, in five folds; the last third judges. A fold
# is a sample of the batch: it has its own matrix, and all have the same weight.

from typing import NamedTuple

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from torch import Tensor
from torch.nn.functional import huber_loss, one_hot, softplus

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)


def standard(X) -> Tensor:
    X = torch.as_tensor(X, dtype=torch.float64)
    return (X - X.mean(0)) / X.std(0)


class Data(NamedTuple):
    A: Tensor  # (folds, rows, features): to fit
    y: Tensor  # (folds, rows), or (folds, rows, classes)
    A_held: Tensor
    y_held: Tensor


def split(X: Tensor, y: Tensor, n: int = 100, k: int = 5) -> tuple[Data, Data]:
    """(k folds of n rows; those rows, with all others held out)"""
    order = torch.randperm(len(X), generator=rng)
    parts = X[order[:n]].reshape(k, n // k, -1), y[order[:n]].reshape(k, n // k, *y.shape[1:])
    others = torch.tensor([[j for j in range(k) if j != i] for i in range(k)])
    fit = [part[others].flatten(1, 2) for part in parts]
    whole = [part.flatten(0, 1)[None] for part in parts]
    return Data(*fit, *parts), Data(*whole, X[order[n:]][None], y[order[n:]][None])


X, y = load_diabetes(return_X_y=True)
X, y = standard(X), standard(y)
powers = torch.cat([standard(X**p) for p in (1, 2, 3)], 1)  # an additive model: a cubic of each
dirty = y + 8 * (torch.rand(len(y), generator=rng) < 0.1)  # a tenth of the targets are spoiled
cells, benign = load_breast_cancer(return_X_y=True)
wines, maker = load_wine(return_X_y=True)

additive, spoiled = split(powers, y), split(powers, dirty)
tumours = split(standard(cells), 2.0 * torch.from_numpy(benign) - 1)
cellars = split(standard(wines), one_hot(torch.from_numpy(maker)).double())

# %%
# Nine models
# -----------
#
# An energy as the maths is written, a loss for what is held out, data, and where the search starts.
# The constrained lasso learns the radius of its ball; the elastic net and Huber's regression have
# two hyper-parameters.


class Model(NamedTuple):
    energy: object  # (matrix, targets, *hyper-parameters) -> an energy
    loss: object  # (prediction, target) -> a number
    data: tuple[Data, Data]
    start: tuple[float, ...]


def square(u, t):
    return (u - t).square().mean()


def pinball(u, t, level=0.9):
    return torch.maximum(level * (t - u), (level - 1) * (t - u)).mean()


def hinge(u, t):
    return (1 - t * u).clamp(min=0).mean()


def log_loss(u, t):
    return softplus(-t * u).mean()


def cross_entropy(u, t):
    return (u.logsumexp(-1) - (t * u).sum(-1)).mean()


feature = torch.arange(30) % 10  # the powers of a feature are one group
MODELS = {
    "lasso": Model(lambda A, y, w: bl.LeastSquares(y) @ A + w * bl.L1(), square, additive, (3.0,)),
    "lasso, radius": Model(
        lambda A, y, r: bl.LeastSquares(y) @ A + bl.L1Ball(r), square, additive, (0.3,)
    ),
    "group lasso": Model(
        lambda A, y, w: bl.LeastSquares(y) @ A + w * bl.GroupL2(feature), square, additive, (1.0,)
    ),
    "elastic net": Model(
        lambda A, y, w, v: bl.LeastSquares(y) @ A + w * bl.L1() + v * bl.LeastSquares(),
        square,
        additive,
        (1.0, 1.0),
    ),
    "Huber": Model(
        lambda A, y, w, d: bl.Huber(d, y) @ A + w * bl.LeastSquares(),
        huber_loss,
        spoiled,
        (1.0, 1.0),
    ),
    "quantile": Model(
        lambda A, y, w: bl.Quantile(0.9, y) @ A + w * bl.LeastSquares(), pinball, additive, (20.0,)
    ),
    "support vectors": Model(
        lambda A, y, w: bl.Hinge(y) @ A + w * bl.LeastSquares(), hinge, tumours, (5.0,)
    ),
    "logistic, L1": Model(
        lambda A, y, w: bl.Logistic(y) @ A + w * bl.L1(), log_loss, tumours, (10.0,)
    ),
    "multiclass": Model(
        lambda A, y, w: bl.CrossEntropy(y) @ A + w * bl.LeastSquares(),
        cross_entropy,
        cellars,
        (10.0,),
    ),
}

# %%
# The same lines for all
# ----------------------
#
# `held_out` solves and judges: the mean over the folds. `tune` goes down its gradient, by L-BFGS on
# the logarithms.


def solved(model: Model, data: Data, hyper: Tensor) -> Tensor:  # (folds, features[, classes])
    x0 = torch.zeros(len(data.A), data.A.shape[2], *data.y.shape[2:])
    return bl.argmin(model.energy(bl.Matrix(data.A), data.y, *hyper), x0=x0)


def held_out(model: Model, data: Data, hyper: Tensor) -> Tensor:
    return model.loss(bl.Matrix(data.A_held)(solved(model, data, hyper)), data.y_held)


def tune(criterion, start: tuple[float, ...]) -> tuple[Tensor, list]:
    """The hyper-parameters, and (them, criterion, its slopes in their logarithms) along the way."""
    logs, path = torch.tensor(start).log().requires_grad_(), []
    optimizer = torch.optim.LBFGS([logs], max_iter=6, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = criterion(logs.exp())
        loss.log().backward()
        path.append((logs.detach().exp(), loss.item(), logs.grad.clone()))
        return loss.log()

    optimizer.step(closure)
    return logs.detach().exp(), path


tuned = {}
for name, model in MODELS.items():
    folds, judge = model.data
    hyper, path = tuned[name] = tune(lambda h, m=model: held_out(m, m.data[0], h), model.start)
    with torch.no_grad():
        before, after = (float(held_out(model, judge, h)) for h in (path[0][0], hyper))
    values = ", ".join(f"{v:.3g}" for v in hyper)
    print(f"{name:16}{values:>12} after {len(path):2} gradients: ", end="")
    print(f"folds {path[0][1]:.3f} to {path[-1][1]:.3f}, other rows {before:.3f} to {after:.3f}")

# %%
# Other criteria
# --------------
#
# One held-out set is the first fold alone. Stein's estimate needs none, but the standard deviation
# of the noise: here that of the residuals of least squares. All three are functions of the same
# solution, and `tune` does not change.

model, (folds, judge) = MODELS["group lasso"], MODELS["group lasso"].data
first = Data(*(part[:1] for part in folds))
A, y = judge.A, judge.y
m, n = A.shape[1:]
residual = y - (A @ torch.linalg.lstsq(A, y[..., None]).solution)[..., 0]
sigma = float(residual.square().sum() / (m - n)) ** 0.5


def stein(hyper: Tensor) -> Tensor:
    def fitted(target):
        return bl.Matrix(A)(solved(model, judge._replace(y=target), hyper))

    return bl.sure(fitted, y, sigma, generator=torch.Generator().manual_seed(0)).mean() + sigma**2


criteria = {
    "held out": lambda h: held_out(model, first, h),
    "five folds": lambda h: held_out(model, folds, h),
    "SURE": stein,
}
for name, criterion in criteria.items():
    hyper, path = tune(criterion, model.start)
    error = float(held_out(model, judge, hyper))
    print(f"group lasso by {name:10} weight {hyper[0]:.3g}, error of the other rows {error:.4f}")

# %%
# Two forms of the lasso
# ----------------------
#
# The lasso with :math:`|x|_1 \le r` runs through the same models as the one with a weight: at
# :math:`r = |x(w)|_1` the two solutions are one.

weights = torch.logspace(-0.5, 2, 12)[:, None]
with torch.no_grad():
    many = judge._replace(A=A[0], y=y.expand(len(weights), -1))
    x0 = torch.zeros(len(weights), n)
    data = bl.LeastSquares(many.y) @ bl.Matrix(many.A)
    penalised = bl.argmin(data + weights * bl.L1(), x0=x0)
    radius = penalised.abs().sum(1, keepdim=True)
    constrained = bl.argmin(data + bl.L1Ball(radius), x0=x0)
print(f"the two paths differ by {(penalised - constrained).abs().max():.1e}")

# %%
# The picture
# -----------
#
# The mean over the folds, the way of L-BFGS and its gradients; of two hyper-parameters the first,
# the other as it was found. On the right the coefficients along both paths.

figure = plt.figure(figsize=(14, 8.5), layout="constrained")
panels = figure.subplot_mosaic("abcj;defj;ghij", width_ratios=[1, 1, 1, 1.2])
for (name, (hyper, path)), axes in zip(tuned.items(), map(panels.get, "abcdefghi"), strict=True):
    reach = torch.linspace(-1.5, 1.5, 9).exp()
    with torch.no_grad(), bl.accuracy(1e-3):
        grid = [torch.cat([hyper[:1] * k, hyper[1:]]) for k in reach]
        curve = [float(held_out(MODELS[name], MODELS[name].data[0], h)) for h in grid]
    axes.semilogx([float(h[0]) for h in grid], curve, color="0.6")
    for h, loss, slope in path:
        around = torch.tensor([-0.25, 0.25])
        axes.plot(h[0] * around.exp(), loss * (1 + slope[0] * around), color="C1")
        axes.plot(h[0], loss, "o", ms=4, color="C0")
    axes.set(
        title=name, ylim=(min(curve) - 0.1 * (d := max(curve) - min(curve)), max(curve) + d / 2)
    )
axes = panels["j"]
axes.plot(radius, penalised, color="0.6", lw=3)
axes.set_prop_cycle(None)
axes.plot(radius, constrained, ".", ms=5)
axes.set(title="weight (lines), radius (dots)", xlabel="$|x|_1$", ylabel="coefficients")
plt.show()
