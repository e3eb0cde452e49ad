r"""
A generator against a lower level
=================================

A generative adversarial network is a bilevel problem: the discriminator :math:`\varphi` solves the
lower level, given what the generator :math:`\theta` makes; the generator moves knowing that the
discriminator will answer. Stepping both at once forgets this.

.. math::
   \max_\theta\; F(\varphi(\theta), \theta) \quad\text{with}\quad \varphi(\theta) =
   \operatorname*{argmin}_\varphi\; F(\varphi, \theta) + \tfrac\rho2|\varphi|^2
"""

# %%
# The two levels
# --------------
#
# Real points lie around eight places of a circle. The discriminator is a logistic regression of
# random cosine features: a strongly convex lower level, in the terms of the library. Its features
# depend on the generator's points, and so do the derivatives of its solution.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
count = 64
frequencies, phases = 3 * torch.randn(2, count), 6.28 * torch.rand(count)
labels = torch.cat([torch.ones(1, 50), -torch.ones(1, 50)], 1)


def fit(real, fake):
    features = 2**0.5 * (torch.cat([real, fake]) @ frequencies + phases).cos()
    return bl.Logistic(labels, weight=0.01) @ bl.Matrix(features)


angle = 2 * torch.pi * torch.randint(8, (50,)) / 8
real = torch.stack([angle.cos(), angle.sin()], 1) + 0.05 * torch.randn(50, 2)
shift = torch.zeros(2, requires_grad=True)
fake = 0.3 * torch.randn(50, 2) + shift
energy = fit(real, fake) + bl.LeastSquares(weight=1e-2)

# %%
# Three answers to the same generator, here one that only shifts a cloud: hold the discriminator
# constant; follow it for ten steps, ``bl.unrolled``; solve for it, ``bl.argmin``. They differ in
# the discriminator, and in whether the gradient knows that it will move.

start = torch.zeros(1, count)
answers = {
    "constant": start,
    "ten steps": bl.unrolled(bl.GradientDescent(), 10)(energy, start),
    "solved": bl.argmin(energy, x0=start, solver=bl.Newton(), diff=bl.Implicit()),
}
for name, phi in answers.items():
    value = fit(real, fake).value(phi).sum()
    slope = torch.autograd.grad(value, shift, retain_graph=True)[0].tolist()
    print(f"{name:10} F = {value:.4f}, gradient in the shift ({slope[0]:+.4f}, {slope[1]:+.4f})")

# %%
# Five runs each
# --------------
#
# ``benchmarks/gan_ring.py`` trains a generator 8-64-64-2 by 600 steps of Adam in each of the three
# ways. A mode counts as found if it has at least a quarter of its share of the points close by.

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
rows = json.loads((root / "benchmarks/results/gan_ring.json").read_text())["rows"]
ways = ("simultaneous", "unrolled", "implicit")
for way in ways:
    mine = [row for row in rows if row["discriminator"] == way]
    print(f"{way:13} modes found: {[row['modes'] for row in mine]}, "
          f"{sum(row['seconds'] for row in mine) / 5:.0f} s of the processor a run")  # fmt: skip

# %%
# The picture
# -----------
#
# 200 points of every generator; a row for each way, a column for each seed. Crosses are the centres
# of the real points.

figure, axes = plt.subplots(3, 5, figsize=(12.5, 7.8), layout="constrained")
for line, way in zip(axes, ways, strict=True):
    for axis, row in zip(line, (r for r in rows if r["discriminator"] == way), strict=True):
        x, y = zip(*row["points"], strict=True)
        axis.plot(x, y, ".", ms=2, color="C0" if row["modes"] >= 7 else "C3")
        turn = 2 * torch.pi * torch.arange(8) / 8
        axis.plot(turn.cos(), turn.sin(), "k+", ms=5, alpha=0.5)
        axis.set(xlim=(-1.5, 1.5), ylim=(-1.5, 1.5), aspect="equal", xticks=[], yticks=[])
        axis.set_title(f"{way}: {row['modes']} of 8", fontsize=10)
plt.show()
