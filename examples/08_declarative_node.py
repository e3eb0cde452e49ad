r"""
Total variation as a declarative node
=====================================

A layer of a network may be *the solution of an optimization problem*: a declarative node. Its
derivative is that of the solution, however the solution was found. For total variation it is easy
to get wrong: a published analysis of this very node takes it to be the identity. Here are the right
derivative, the wrong one, the reason why a gradient check does not tell them apart, and what either
costs.
"""

# %%
# The node
# --------
#
# .. math::
#    \min_x \; \tfrac{1}{2}|y^*(x) - t|^2 \quad\text{with}\quad
#    y^*(x) = \underset{y}{\operatorname{argmin}} \;
#    \tfrac{1}{2}|y - x|^2 + w \sum_i |y_{i+1} - y_i|
#
# The library solves the lower level exactly, with a taut string, and knows its segments:

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(4)
torch.set_default_dtype(torch.float64)
n, weight = 48, 1.0
target = torch.tensor([0.0, 2.0, 0.5]).repeat_interleave(n // 3)
x = target + 0.4 * torch.randn(n)


def node(x):  # (n,) -> (n,)
    return (weight * bl.TotalVariation(dims=1)).prox(x[None], 1.0)[0]


freedom = (weight * bl.TotalVariation(dims=1)).degrees_of_freedom(x[None])
print(f"{n} samples, {int(freedom)} segments: the rank of the derivative, and its trace")

# %%
# Why the identity is wrong
# -------------------------
#
# The argument goes: :math:`|t|` has second derivative 0, so the lower energy has the Hessian
# :math:`I`, so :math:`dy^*/dx = I`. It holds where no two neighbours are equal. But neighbours
# *are* equal in a solution, that is what total variation is for, and there :math:`|t|` has a kink:
# small changes of the data do not part them. What is left is to move segments as a whole, by the
# mean of what their data do. The derivative averages over segments, and :math:`|dy^*/dx - I|_F =
# \sqrt{n - \text{segments}}`.

right = torch.autograd.functional.jacobian(node, x)
identity = torch.eye(n)
print(f"|dy/dx - I| = {(right - identity).norm():.4f} = sqrt({n} - {int(freedom)})")

# %%
# The check that passes
# ---------------------
#
# How could the identity pass a test by finite differences? When the test differentiates the *loop*,
# not the solution:


def descend(x, steps=500, step=0.005):
    y = x
    for _ in range(steps):
        slope = weight * torch.sign(y.diff())
        pull = torch.nn.functional.pad(slope, (1, 0)) - torch.nn.functional.pad(slope, (0, 1))
        y = y - step * (y - x + pull)
    return y


direction, h = torch.randn(n), 1e-6
direction /= direction.norm()


def differences(solution):
    return (solution(x + h * direction) - solution(x - h * direction)) / (2 * h)


loop = torch.autograd.functional.jacobian(descend, x) @ direction
print(f"the loop:     its autograd and its differences agree to "
      f"{(loop - differences(descend)).norm():.0e}")  # fmt: skip
print(f"              its derivative and the identity agree to {(loop - direction).norm():.0e}")
print(f"the solution: its autograd and its differences agree to "
      f"{(right @ direction - differences(node)).norm():.0e}")  # fmt: skip
print(f"loop and solution are {(loop - right @ direction).norm():.2f} apart, of "
      f"{(right @ direction).norm():.2f}")  # fmt: skip
print(f"their values are {(descend(x) - node(x)).abs().max():.2f} apart")

# %%
# The iterates jump back and forth around equal neighbours and never meet. As no sign changes with
# an infinitely small change of the data, each step maps the Jacobian :math:`J` to
# :math:`(1 - \tau) J + \tau I`, which leaves :math:`I` as it is, at every iterate, however many. A
# probe of size ``h`` sees the same as long as it moves no sign: the check compares the loop with
# itself. It says that autograd works; it says nothing of the solution. Compare with differences of
# *converged* solutions.

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
axes[0].plot(x, ".", color="0.6", label="data $x$")
axes[0].step(range(n), descend(x), where="mid", color="tab:orange", lw=3, label="descent")
axes[0].step(range(n), node(x), where="mid", color="tab:blue", label="solution $y^*$")
axes[0].legend()
axes[0].set(title="values: near each other", xlabel="sample")
loop_matrix = torch.autograd.functional.jacobian(descend, x)
for ax, matrix, title in (
    (axes[1], right, "derivative of the solution"),
    (axes[2], loop_matrix, "derivative of the descent"),
):
    image = ax.imshow(matrix.sqrt(), cmap="Blues", vmin=0, vmax=1)
    ax.set(title=title, xlabel="data $x_j$", ylabel="solution $y_i$")
figure.colorbar(image, ax=axes[1:], label=r"$\sqrt{\partial y_i/\partial x_j}$", shrink=0.8)
plt.show()

# %%
# What it costs
# -------------
#
# The node against gradient descent with backtracking and autograd through it, with :math:`|t|` and
# with :math:`\sqrt{t^2 + 10^{-6}}`, at most 300 steps, signals of 2 to :math:`2^{17}` samples.
# ``benchmarks/declarative_node.py`` measured it, in time of the processor:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
stored = json.loads((root / "benchmarks/results/declarative_node.json").read_text())
methods = {"node": "tab:blue", "descent": "tab:orange", "descent, smoothed": "tab:green"}
rows = {m: [r for r in stored["rows"] if r["method"] == m] for m in methods}

figure, axes = plt.subplots(2, 3, figsize=(11, 6.4), layout="constrained", sharex=True)
for ax, part in zip(axes[0], ("forward", "backward", "total"), strict=True):
    for method, color in methods.items():
        sizes = [r["n"] for r in rows[method]]
        ax.loglog(sizes, [r[part] for r in rows[method]], ".-", color=color, label=method)
    ax.set(title=part)
axes[0][0].set(ylabel="seconds")
axes[0][0].legend()
sizes = [r["n"] for r in rows["node"]]
ratios = [b["total"] / a["total"] for a, b in zip(rows["node"], rows["descent"], strict=True)]
axes[1][0].loglog(sizes, ratios, ".-", color="tab:orange")
ratios = [
    b["total"] / a["total"] for a, b in zip(rows["node"], rows["descent, smoothed"], strict=True)
]
axes[1][0].loglog(sizes, ratios, ".-", color="tab:green")
axes[1][0].set(title="total time / that of the node", xlabel="samples")
for method in ("descent", "descent, smoothed"):
    excess = [max(r["excess"], 1e-16) for r in rows[method]]
    axes[1][1].loglog(sizes, excess, ".-", color=methods[method])
axes[1][1].set(title="excess of the lower energy, relative", xlabel="samples", ylim=(1e-10, 10))
for method, color in methods.items():
    errors = [max(r["gradient error"], 1e-16) for r in rows[method]]
    axes[1][2].loglog(sizes, errors, ".-", color=color)
axes[1][2].set(title="error of the gradient, relative", xlabel="samples")
for ax in axes.flat:
    ax.set_xscale("log", base=2)
plt.show()

# %%
# From a few dozen samples on descent is slower by two to three powers of ten. And it does not
# arrive: with :math:`|t|` it stalls at about twice the least energy, smoothed it is a fifth above
# it. Its gradient is wrong by about its own size, or more, even where the values are right
# (:math:`n = 2` with :math:`|t|`). The error of the node is what central differences leave.
#
# In an energy the same node is written ``LeastSquares(x) + w * TotalVariation(dims=1)`` and solved
# by ``argmin``; ``layers.TVDenoise(dims=1)`` is the layer with a learnable weight. The
# :doc:`theory </theory/total_variation>` has the proofs.
