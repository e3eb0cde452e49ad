r"""
Unknowns that live in a set
===========================

Amounts are not negative, shares add up to one, ranks are ordered. A set is a term like any other:
its prox is the projection, and what the projection does to a gradient is part of the derivative.
"""

# %%
# Non-negative least squares
# --------------------------
#
# Spikes seen through a wide instrument. Least squares inverts the noise; with :math:`x \ge 0`, and
# nothing to tune, the spikes stand apart:
#
# .. math::
#    \min_x \; \tfrac12 |A(s) x - b|^2 \quad\text{subject to}\quad x \ge 0.
#
# SciPy's active-set method finds the same answer.

import matplotlib.pyplot as plt
import scipy.optimize
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)
n = 60
place = torch.arange(n)


def instrument(width):  # (n, n)
    row = torch.exp(-0.5 * ((place[:, None] - place) / width) ** 2)
    return row / row.sum(1, keepdim=True)


spikes = torch.zeros(1, n)
spikes[0, [12, 17, 33, 36, 50]] = torch.tensor([1.0, 0.6, 0.8, 1.2, 0.5])
seen = spikes @ instrument(1.3).T + 0.005 * torch.randn(1, n, generator=rng)


def non_negative(width):
    data = bl.LeastSquares(seen) @ bl.Matrix(instrument(width))
    return bl.argmin(data + bl.NonNegative(), x0=torch.zeros(1, n))


free = torch.linalg.lstsq(instrument(1.3), seen[0]).solution
x = non_negative(1.3)
other = torch.from_numpy(scipy.optimize.nnls(instrument(1.3).numpy(), seen[0].numpy())[0])
print(f"from SciPy's: {(x[0] - other).abs().max():.1e}; not 0: {int((x > 1e-9).sum())} of {n}")
print(f"error: least squares {(free - spikes[0]).norm():.2f}, x >= 0 {(x - spikes).norm():.2f}")

# %%
# The instrument's width, learned
# -------------------------------
#
# What if the width is not known? Known spikes calibrate it: the gradient of their error in the
# width comes through the solution, in which an entry that is 0 stays 0.

width = torch.tensor(0.9, requires_grad=True)
optimizer = torch.optim.LBFGS([width], lr=0.2, max_iter=15, line_search_fn="strong_wolfe")
path = []


def closure():
    optimizer.zero_grad()
    loss = (non_negative(width) - spikes).square().sum()
    loss.backward()
    path.append([width.item(), loss.item()])
    return loss


optimizer.step(closure)
print(f"width {path[0][0]:.1f} -> {width.item():.3f} after {len(path)} gradients; it was 1.3")

# %%
# Projections
# -----------
#
# Six sets in the plane, as layers: random points and where they go. The gradient of the distance
# moved is the way back, whatever the set.

SETS = {
    "box": bl.Box(-0.6, 0.6),
    "simplex": bl.Simplex(),
    "l1 ball": bl.L1Ball(1.0),
    "l2 ball": bl.L2Ball(1.0),
    "half-space": bl.HalfSpace(torch.tensor([[1.0, 2.0]]), 0.5),
    "ordered": bl.Monotone(),
}
points = 1.2 * torch.randn(60, 2, generator=rng)
projected = {}
for name, term in SETS.items():
    start = points.clone().requires_grad_()
    end = bl.layers.Projection(term)(start)
    ((start - end).square().sum() / 2).backward()
    projected[name] = end.detach()
    off = (start.grad - (start - end)).abs().max()
    print(f"{name:10} gradient of half the squared distance: {off.item():.1e} from x - P(x)")

# %%
# The picture
# -----------

figure = plt.figure(figsize=(12, 6.6), layout="constrained")
panels = figure.subplot_mosaic([["nn"] * 4 + ["w"] * 2, list(SETS)], height_ratios=[1.2, 1])
axes = panels["nn"]
axes.plot(place, free.clamp(-1.5, 1.5), color="0.8", label="least squares, cut off")
axes.plot(place, seen[0], color="C0", label="seen")
axes.vlines(place, 0, x[0], color="C1", lw=3, label="$x \\geq 0$")
axes.plot(place[spikes[0] > 0], spikes[spikes > 0], "k_", ms=12, label="the truth")
axes.set_title("non-negative least squares")
axes.legend(fontsize=8)
axes = panels["w"]
axes.plot(*torch.tensor(path).T, "o:", color="C1")
axes.set(xlabel="width", yscale="log", title="squared error of known spikes")
for name, end in projected.items():
    axes = panels[name]
    axes.quiver(*points.T, *(end - points).T, angles="xy", scale_units="xy", scale=1, color="0.7")
    axes.plot(*end.T, ".", color="C1")
    axes.set(title=name, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
plt.show()
