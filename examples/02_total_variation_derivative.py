r"""
The derivative of total variation
=================================

What is the derivative of a denoised signal in the noisy one? For total variation the answer is a
picture: block averages. This page computes it in four ways, one of which is the wrong one that
passes a careless test.
"""

# %%
# A signal and its solution
# -------------------------
#
# .. math::
#    x(y) = \underset{x}{\operatorname{argmin}} \;
#    \tfrac{1}{2}|x - y|^2 + w \sum_i |x_{i+1} - x_i|
#
# The solution is piecewise constant.

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.colors import PowerNorm

import bilevel as bl

torch.manual_seed(1)
n, weight = 60, 1.0
steps = torch.tensor([0.0, 2.0, 0.5, 1.5], dtype=torch.float64).repeat_interleave(n // 4)
y = steps + 0.4 * torch.randn(n, dtype=torch.float64)


def denoise(y, **options):  # (n,) -> (n,)
    energy = bl.LeastSquares(y[None]) + weight * bl.TotalVariation(dims=1)
    return bl.argmin(energy, **options)[0]


x = denoise(y)
jumps = (x.diff().abs() > 1e-6).nonzero()[:, 0] + 1
segments = torch.tensor_split(torch.arange(n), jumps)
print(f"{len(segments)} segments of lengths {[len(s) for s in segments]}")

# %%
# Four Jacobians
# --------------
#
# **The library's**, row by row, as for any tensor with a gradient:


ours = torch.autograd.functional.jacobian(denoise, y)

# %%
# **The theorem**: while the segments stay as they are, each is the mean of its data, shifted by a
# constant. So the derivative averages over each segment:

theorem = torch.zeros(n, n, dtype=torch.float64)
for segment in segments:
    theorem[segment[:, None], segment] = 1 / len(segment)

# %%
# **Central differences of converged solutions**, which know nothing of segments:

h = 1e-5
units = h * torch.eye(n, dtype=torch.float64)


def solutions(y):  # (B, n) -> (B, n): all the perturbed problems in one batch
    return bl.solve(bl.LeastSquares(y) + weight * bl.TotalVariation(dims=1), tol=1e-13).x


differences = ((solutions(y + units) - solutions(y - units)) / (2 * h)).T

# %%
# **Backpropagation through subgradient descent**, written down in three lines, as is often done:


def descend(y, iterations=2000, step=0.002):
    x = y
    for _ in range(iterations):
        slope = weight * torch.sign(x.diff())
        pull = torch.nn.functional.pad(slope, (1, 0)) - torch.nn.functional.pad(slope, (0, 1))
        x = x - step * (x - y + pull)
    return x


unrolled = torch.autograd.functional.jacobian(descend, y, vectorize=True)

# %%
# How far apart are they?


def distance(a, b):
    return ((a - b).norm() / b.norm()).item()


print(f"ours        - theorem: {distance(ours, theorem):.1e}")
print(f"differences - theorem: {distance(differences, theorem):.1e}")
print(f"unrolled    - theorem: {distance(unrolled, theorem):.1e}")
print(f"unrolled   - identity: {distance(unrolled, torch.eye(n).double()):.1e}")
print(f"values: subgradient descent - solution: at most {(descend(y) - x).abs().max().item():.3f}")

# %%
# The unrolled descent comes near the *values* of the solution, and has the identity as its
# derivative, at every iterate: almost everywhere ``sign`` has derivative 0, so each step maps
# :math:`I` to :math:`(1-\tau) I + \tau I`. Finite differences of that loop agree with it, and so a
# gradient check of the loop passes:

probe = torch.zeros(n, dtype=torch.float64)
probe[n // 2] = h
loop = (descend(y + probe) - descend(y - probe)) / (2 * h)
print(f"the loop's own differences - its own gradient: {distance(loop, unrolled[:, n // 2]):.1e}")

# %%
# The picture
# -----------

figure = plt.figure(figsize=(11, 6.2), layout="constrained")
panels = figure.subplot_mosaic("sss;abc", height_ratios=[1, 1.6])
axes = panels["s"]
axes.plot(y, ".", color="0.6", label="data")
signals = (
    ("tab:orange", 4, "subgradient descent, 2000 steps", descend(y)),
    ("tab:blue", 1.5, "solution", x),
)
for color, width, label, signal in signals:
    axes.step(np.arange(n), signal, where="mid", color=color, lw=width, label=label)
axes.legend(ncols=3, loc="upper right")
axes.set(xlim=(-0.5, n - 0.5), ylim=(-1.0, 3.6), xlabel="sample")
titles = {
    "a": "bilevel: averages over segments",
    "b": "differences of converged solutions",
    "c": "unrolled subgradient descent: identity",
}
norm = PowerNorm(0.5, vmin=0, vmax=1)
for key, matrix in zip("abc", (ours, differences, unrolled), strict=True):
    image = panels[key].imshow(matrix, cmap="Blues", norm=norm)
    panels[key].set(title=titles[key], xlabel="data $y_j$", ylabel="solution $x_i$")
label = r"$\partial x_i/\partial y_j$"
figure.colorbar(image, ax=[panels[k] for k in "abc"], shrink=0.8, label=label)
plt.show()

# %%
# In the weight the derivative is :math:`(s_k - s_{k-1})/|S_k|` on the segment :math:`S_k`, with the
# signs of the jumps at its ends; the :doc:`theory </theory/total_variation>` has the proofs, and
# the formulas in two dimensions.
