r"""
Objectives and constraints as functions
=======================================

Not every problem is a sum of known terms. ``bl.DeclarativeNode`` takes any smooth objective and
constraints as functions of :math:`y` and of what they depend on:

.. math::
   y(\theta) = \underset{y}{\operatorname{argmin}} \; f(y, \theta)
   \quad\text{with}\quad c(y, \theta) = 0, \quad d(y, \theta) \le 0,

and differentiates the solution by the conditions of Karush, Kuhn and Tucker, however it was found
(Gould, Hartley, Campbell 2021).
"""

# %%
# The nearest point of an ellipse
# -------------------------------
#
# has no formula. As a node it is two lines, and so is its derivative in the points *and* in the
# axes of the ellipse, on which only the constraint depends.

import warnings

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

nearest = bl.DeclarativeNode(
    lambda y, x, axes: (y - x).square().sum(1),
    lambda y, x, axes: (y / axes).square().sum(1, keepdim=True) - 1,
)


def start(x):
    return x / x.norm(dim=1, keepdim=True)


x = 2.5 * torch.nn.functional.normalize(torch.randn(12, 2)) * (0.8 + 0.4 * torch.rand(12, 1))
truth = torch.tensor([2.0, 0.7])
seen = nearest(x, truth, y0=start(x))

log_axes = torch.zeros(2, requires_grad=True)  # learned from where the points went
optimizer = torch.optim.LBFGS([log_axes], max_iter=20, line_search_fn="strong_wolfe")
path = []


def closure():
    optimizer.zero_grad()
    loss = (nearest(x, log_axes.exp(), y0=start(x)) - seen).square().mean()
    loss.backward()
    path.append(log_axes.detach().exp())
    return loss


optimizer.step(closure)
print(f"axes 1, 1 -> {[round(a, 4) for a in path[-1].tolist()]} after {len(path)} gradients")

# %%
# Robust means
# ------------
#
# The mean of numbers is :math:`\operatorname{argmin}_y \sum_i (y - x_i)^2`. Another penalty makes
# another mean, and its derivative :math:`dy/dx_i` tells how much each number counts: what
# statisticians call its influence. Nine numbers around 0, and a tenth that moves away:

penalties = {
    "square": lambda u: u.square() / 2,
    "pseudo-Huber": lambda u: (1 + (u / 0.3).square()).sqrt(),
    "Welsch": lambda u: 1 - (-(u / 0.6).square() / 2).exp(),
}
numbers = 0.3 * torch.randn(9)
places = torch.linspace(-1, 4, 41)
batch = torch.cat([numbers.expand(41, 9), places[:, None]], 1).requires_grad_()
means, influences = {}, {}
for name, penalty in penalties.items():
    pool = bl.DeclarativeNode(lambda y, x, penalty=penalty: penalty(y - x).sum(1))
    y = pool(batch, y0=numbers.mean().expand(41, 1))
    (slope,) = torch.autograd.grad(y.sum(), batch)
    means[name], influences[name] = y.detach()[:, 0], slope[:, -1]
    print(f"{name:13} the tenth number at 4: mean {y[-1].item():+.3f}, counts {slope[-1, -1]:+.3f}")

# %%
# Eigenvectors
# ------------
#
# The first eigenvector of :math:`S` maximises :math:`y^\top S y` on the sphere. Its derivative
# grows like one over the distance to the next eigenvalue. Where the two meet there is none:

unit = bl.DeclarativeNode(
    lambda y, S: -(y[:, None] @ S @ y[:, :, None])[:, 0, 0],
    lambda y, S: y.square().sum(1, keepdim=True) - 1,
)
gaps = torch.logspace(-3, 0, 13)
S = torch.diag_embed(torch.stack([1 + gaps, torch.ones(13), 0.2 * torch.ones(13)], 1))
S.requires_grad_()
y = unit(S, y0=torch.tensor([1.0, 0.3, 0.3]).expand(13, 3))
(slopes,) = torch.autograd.grad(y[:, 1].sum(), S)
sizes = slopes.flatten(1).norm(dim=1)
print(f"gap {gaps[0]:.0e}: derivative {sizes[0]:.0f}, gap {gaps[-1]:g}: {sizes[-1]:.2f}")

# %%
# What is said, and not returned in silence
# -----------------------------------------
#
# A start at another eigenvector fulfils the first-order conditions, and is no maximum. Two
# eigenvalues that are equal leave the eigenvector open. A point on the border of an inequality that
# does not press has one derivative for each side.

third = torch.tensor([[0.0, 0.0, 1.0]])
try:
    unit(S[-1:].detach(), y0=third)
except bl.NotConverged as error:
    print("NotConverged:", str(error).split(":")[0])

double = torch.diag(torch.tensor([1.0, 1.0, 0.2]))[None].requires_grad_()
try:
    unit(double, y0=torch.ones(1, 3))[0, 1].backward()
except bl.NotUnique as error:
    print("NotUnique:", str(error).split(" (")[0])

disk = bl.DeclarativeNode(
    lambda y, x: (y - x).square().sum(1), None, lambda y, x: y.square().sum(1, keepdim=True) - 1
)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    disk(torch.tensor([[1.0, 0.0]]), y0=torch.zeros(1, 2))
print("KinkWarning:", str(told[0].message).split(":")[0])

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained")
angle = torch.linspace(0, 6.2832, 200)
circle = torch.stack([angle.cos(), angle.sin()])
shown = [*path[:: max(1, len(path) // 4)], path[-1]]
for k, ends in enumerate(shown):
    color = plt.get_cmap("viridis")(k / (len(shown) - 1))
    axes[0].plot(*(ends[:, None] * circle), color=color, lw=1)
for a, b in zip(x, seen.detach(), strict=True):
    axes[0].plot([a[0], b[0]], [a[1], b[1]], ".-", color="0.6", lw=1)
axes[0].set(title="an ellipse, learned from projections", aspect="equal")
for name in penalties:
    axes[1].plot(places, means[name], label=name)
    axes[2].plot(places, influences[name], label=name)
axes[1].set(title="mean of ten numbers", xlabel="the tenth")
axes[2].set(title="how much the tenth counts, $dy/dx_{10}$", xlabel="the tenth")
axes[2].axhline(0, color="0.8", zorder=0)
axes[1].legend()
axes[3].loglog(gaps, sizes, ".-", color="C3")
axes[3].set(title="derivative of an eigenvector", xlabel="distance to the next eigenvalue")
plt.show()
