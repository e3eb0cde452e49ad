r"""
A polynomial of degree nine through ten points
==============================================

A polynomial of degree nine passes through any ten points, and between them it swings. A ridge tames
it, if its weight is right. The weight is found by the gradient of the error on twenty further
points: first by hand, then by an estimator with scikit-learn's conventions.
"""

# %%
# Ten points, and twenty held out
# -------------------------------
#
# .. math::
#    c(w) = \underset{c}{\operatorname{argmin}} \;
#    \tfrac{1}{2} |Pc - y|^2 + \tfrac{w}{2} |c|^2,
#    \qquad P_{ij} = x_i^j, \quad j = 0, \ldots, 9.
#
# There are twenty draws of the noise. The first is shown, the others tell whether it was luck.

import matplotlib.pyplot as plt
import torch
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures

import bilevel as bl
from bilevel.sklearn import RidgeHO

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)
draws = 20


def truth(x):
    return torch.sin(torch.pi * x)


def powers(x):
    return x[:, None] ** torch.arange(10)


x = torch.linspace(-1, 1, 10)
x_held = 2 * torch.rand(20, generator=rng) - 1
every = torch.linspace(-1, 1, 400)
y, y_held = (truth(at) + 0.25 * torch.randn(draws, len(at), generator=rng) for at in (x, x_held))


def fit(log_weights, y):  # (B, 1), (B, 10) -> (B, 10): the coefficients
    ridge = log_weights.exp() * bl.LeastSquares()
    return bl.argmin(bl.LeastSquares(y) @ bl.Matrix(powers(x)) + ridge)


def held_out(log_weights, y, y_held):  # -> (B,)
    return (fit(log_weights, y) @ powers(x_held).T - y_held).square().mean(1)


# %%
# Is the gradient right?
# ----------------------
#
# At a weight that hardly matters, in the middle, and at one that flattens the polynomial. The
# gradient is taken in the logarithm of the weight: weights are positive, and span decades.

log_weights = torch.tensor([[1e-8], [1e-2], [10.0]]).log().requires_grad_()
first = y[:1].expand(3, -1), y_held[:1]
(gradient,), certificate = bl.hypergradient(held_out(log_weights, *first).sum(), [log_weights])
with torch.no_grad():
    h = 1e-4
    plus, minus = (held_out(log_weights + step, *first) for step in (h, -h))
for row in zip([1e-8, 1e-2, 10.0], gradient[:, 0], (plus - minus) / (2 * h), strict=True):
    print("weight {:5g}: gradient {:+.8f}, central differences {:+.8f}".format(*row))
print(certificate)

# %%
# Down the gradient
# -----------------
#
# L-BFGS from a weight of :math:`10^{-8}`, where the polynomial still passes through all ten points.
# The error spans decades as well, so its logarithm is what goes down. Where the curve is flat a
# step may leap too far; the line search takes it back.


def tune(y, y_held):
    """The logarithm of the weight, and (log weight, log error, slope) along the way."""
    log_weight = torch.full((1, 1), 1e-8).log().requires_grad_()
    optimizer = torch.optim.LBFGS([log_weight], tolerance_grad=1e-3, line_search_fn="strong_wolfe")
    path = []

    def closure():
        optimizer.zero_grad()
        loss = held_out(log_weight, y, y_held).log().sum()
        loss.backward()
        path.append([v.item() for v in (log_weight, loss, log_weight.grad)])
        return loss

    optimizer.step(closure)
    return log_weight.detach(), path


tuned, path = tune(y[:1], y_held[:1])
grid = torch.linspace(-20, 5, 200)[:, None]  # the same error on a grid: one batch of 200 problems
with torch.no_grad():
    curve = held_out(grid, y[:1].expand(200, -1), y_held[:1])
    found = held_out(tuned, y[:1], y_held[:1]).item()
print(f"weight {tuned.exp().item():.1e} after {len(path)} evaluations: ", end="")
print(f"held-out error {found:.5f}, the least of the grid {curve.min():.5f}")

# %%
# Was it luck?
# ------------
#
# Every draw gets its own weight in the same way. The judge is the distance from the sine, on the
# whole interval.


def distance(values):  # (B, 400) -> (B,)
    return (values - truth(every)).square().mean(1).sqrt()


start = torch.full((draws, 1), 1e-8).log()
end = torch.cat([tune(y[k : k + 1], y_held[k : k + 1])[0] for k in range(draws)])
with torch.no_grad():
    before, after = (fit(log_weights, y) @ powers(every).T for log_weights in (start, end))
ratio = distance(after) / distance(before)
print(f"distance from the sine, median: {distance(before).median():.3f} before", end="")
print(
    f", {distance(after).median():.3f} after; better in {int((ratio < 1).sum())} of {draws} draws"
)

# %%
# Without points to spare
# -----------------------
#
# ``RidgeHO`` does this by cross-validation: all thirty points serve for both, and the gradient of
# the mean error over the folds finds the weight. The folds are shuffled, as the points are in
# order: a fold of neighbours would ask for what lies beyond the others. It leaves the constant out
# of the ridge, and its energy is twice ours, so ``alpha_`` has the meaning of :math:`w`. On this
# draw it does not come nearer to the sine; its merit is that no point serves the weight alone.

folds = KFold(5, shuffle=True, random_state=0)
model = make_pipeline(PolynomialFeatures(9, include_bias=False), RidgeHO(cv=folds))
model.fit(torch.cat([x, x_held])[:, None].numpy(), torch.cat([y[0], y_held[0]]).numpy())
crossed = torch.from_numpy(model.predict(every[:, None].numpy()))

curves = {"before": before[0], "after": after[0], "RidgeHO, all thirty points": crossed}
for name, values in curves.items():
    print(f"{name:27} distance from the sine {distance(values[None])[0]:.3f}")
print(f"RidgeHO's weight: {model[-1].alpha_:.1e}")

# %%
# The picture
# -----------

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
left.loglog(grid.exp(), curve, color="0.6", label="held-out error")
points = torch.tensor(path)
left.plot(*points[:, :2].exp().T, "o:", color="C0", ms=5, lw=1, label="the path of L-BFGS")
reach = torch.tensor([-0.8, 0.8])
for t, loss, slope in path:
    left.plot((t + reach).exp(), (loss + slope * reach).exp(), color="C1", lw=2)
left.plot([], [], color="C1", lw=2, label="gradients")
left.set(xlabel="weight", ylabel="mean squared error", title="the weight, found by its gradient")
left.set_xlim(1e-9, 1e3)
left.legend()

right.plot(x, y[0], "o", color="0.2", label="to fit")
right.plot(x_held, y_held[0], "o", mfc="none", color="0.5", label="held out")
right.plot(every, truth(every), color="0.75", lw=4, label="the sine")
for (name, values), style in zip(curves.items(), ("C3", "C0", "C2--"), strict=True):
    right.plot(every, values, style, label=name)
right.set(ylim=(-2, 2), xlabel="x", title="degree nine")
right.legend(fontsize=8, loc="upper left")
plt.show()
