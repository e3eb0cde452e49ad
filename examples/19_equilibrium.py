r"""
Equilibrium layers
==================

A layer may be defined by what it comes to rest at: :math:`x = \sigma(Wx + Uy + b)`, a network of
infinitely many equal layers. ``bl.layers.Equilibrium`` finds the equilibrium, sample by sample, and
differentiates it as every other fixed point of the library: memory does not depend on the number of
iterations.
"""

# %%
# The first example
# -----------------
#
# With :math:`\sigma = \tanh`, and :math:`W` of a given spectral norm. Below 1 the map contracts,
# and the equilibrium is unique; above, it may still be found.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import bilevel as bl
from bilevel.layers import Equilibrium, MonotoneEquilibrium, jacobian_penalty

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
n, batch = 60, 16


class Sigma(nn.Module):
    def __init__(self, norm):
        super().__init__()
        W = torch.randn(n, n)
        self.W = nn.Parameter(norm * W / torch.linalg.matrix_norm(W, 2))
        self.U = nn.Linear(n, n)

    def forward(self, x, y):
        return torch.tanh(x @ self.W.T + self.U(y))


y, target = torch.randn(batch, n), torch.randn(batch, n)
layer = Equilibrium(Sigma(0.9), tol=1e-10)
x = layer(y)
(x - target).square().sum().backward()
print(f"|x - f(x)| = {(x - layer.f(x, y)).norm().item():.0e}")
print(f"mean square of the Jacobian's singular values: "
      f"{jacobian_penalty(lambda x: layer.f(x, y), x).mean().item():.3f}")  # fmt: skip

# %%
# How it is found
# ---------------
#
# By rules of the run, which any solver can have: plain iteration, Anderson mixing, Broyden's
# method. The residual after so many evaluations of :math:`f`:

rules = {"plain": bl.Plain(), "Anderson": bl.AndersonMixing(), "Broyden": bl.Broyden()}


def residuals(f, rule):
    """(evaluations, the largest relative residual)"""
    points = []
    for k in (2, 4, 7, 11, 16, 23, 33, 47, 65):
        evaluations = []

        def counted(x, evaluations=evaluations):
            evaluations.append(1)
            return f(x, y)

        with torch.no_grad():
            x = Equilibrium(counted, acceleration=rule, tol=1e-15, max_iter=k, on_fail="ignore")(
                x0=torch.zeros(batch, n)
            )
            size = ((x - f(x, y)).norm(dim=1) / x.norm(dim=1)).max()
        points.append((k, float(size)))
    return zip(*points, strict=True)


curves = {
    (norm, name): tuple(residuals(Sigma(norm), rule))
    for norm in (0.9, 2.0)
    for name, rule in rules.items()
}

# %%
# Phantom gradients
# -----------------
#
# ``Truncated(k, damping=d)`` leaves the adjoint after k terms, of the damped map. It is biased; the
# error falls as the map contracts:


def gradient(diff):
    f = layer.f
    loss = (Equilibrium(f, diff=diff, tol=1e-12)(y) - target).square().sum()
    return torch.autograd.grad(loss, f.W)[0]


exact = gradient(bl.FixedPoint())
terms = (1, 2, 3, 5, 8, 12, 18)
errors = {
    damping: [
        float((gradient(bl.Truncated(k, damping=damping)) - exact).norm() / exact.norm())
        for k in terms
    ]
    for damping in (1.0, 0.8, 0.5)
}

# %%
# One that cannot fail
# --------------------
#
# With :math:`I - W \succeq m I`, and a ReLU, the equilibrium solves a strongly monotone inclusion.
# It exists and is unique whatever the parameters become; here they are drawn large:

monotone = MonotoneEquilibrium(n, n, margin=1.0, tol=1e-8)
with torch.no_grad():
    for parameter in monotone.parameters():
        parameter.normal_(std=0.3)
    ends = [monotone(y, x0=10 * torch.randn(batch, n)) for _ in range(2)]
print(f"from two starts: {(ends[0] - ends[1]).norm() / ends[0].norm():.0e} apart")

# %%
# A denoiser
# ----------
#
# Three small convolutions say what to take off the noisy image :math:`y`, given a first guess
# :math:`x`: :math:`x\mapsto y-\mathrm{net}(x,y)`. Repeat this five times, and train the net through
# the five; or train its equilibrium, with the memory of one. ``benchmarks/image_networks.py`` did
# both, with the same data and as many updates:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
for row in json.loads((root / "benchmarks/results/image_networks.json").read_text())["rows"]:
    if "y - net" in row["network"]:
        print(f"{row['network']}: {row['PSNR']:.2f} dB, {row['parameters']} parameters")

# %%
# The picture
# -----------
#
# On the right, forward and backward of 512 features and batch 256 to 1e-5, measured by
# ``benchmarks/equilibrium.py`` in time of the processor, beside torchdeq:

rows = json.loads((root / "benchmarks/results/equilibrium.json").read_text())["rows"]
rows = [row for row in rows if row["norm of W"] == 0.9]

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for (norm, name), (steps, sizes) in curves.items():
    color = {"plain": "0.5", "Anderson": "C0", "Broyden": "C1"}[name]
    axes[0].semilogy(steps, sizes, "-" if norm < 1 else "--", color=color, label=f"{name}, {norm}")
axes[0].set(title="residual, for two norms of $W$", xlabel="steps", ylim=(1e-13, 3))
axes[0].legend()
for damping, values in errors.items():
    axes[1].semilogy(terms, values, ".-", label=f"damping {damping}")
axes[1].set(title="phantom gradients: relative error", xlabel="terms")
axes[1].legend()
names = [row["method"].replace(", ", ",\n") for row in rows]
colors = ["tab:gray" if "torchdeq" in row["method"] else "tab:blue" for row in rows]
axes[2].barh(names, [row["ms"] for row in rows], color=colors)
axes[2].tick_params(axis="y", labelsize=7)
axes[2].set(title="forward and backward, ms", xscale="log")
for i, row in enumerate(rows):
    axes[2].text(row["ms"], i, f" {row['ms']:.0f}", va="center", fontsize=8)
axes[2].xaxis.set_minor_formatter("")
axes[2].margins(x=0.15)
plt.show()
