r"""
Learned optimizers
==================

An optimizer is a rule that turns gradients into steps. Which rule is best *on problems like mine,
after a hundred steps*? A bilevel problem: below, the steps of a rule :math:`r` on energies drawn
from a family; above, where they have led.

.. math::
   \min_r\; \mathbb E_E \sum_k w_k \log E(x_k) \quad\text{with}\quad x_{k+1} = r(x_k, \nabla E(x_k),
   \ldots)
"""

# %%
# A line search
# -------------
#
# Steepest descent with the *exact* step lowers the energy most in each step, and turns into a
# zigzag. ``LearnedLineSearch`` multiplies the exact step by a factor that a small recurrent network
# tells. ``learn_rule`` trains it through its own twenty steps, on quadratics drawn at random, with
# all the weight :math:`w_k` on the last one:

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
steps = 20


def draw(count=64):
    """Random least squares in ten dimensions, and where to start."""
    energy = bl.LeastSquares(torch.randn(count, 10)) @ bl.Matrix(torch.randn(count, 10, 10))
    return energy, torch.randn(count, 10)


search = bl.LearnedLineSearch()
bl.learn_rule(search, draw, weights=torch.eye(steps)[-1], updates=80, lr=0.03)

# %%
# A rule is what the solvers of the library take as ``acceleration``, so the learned one runs where
# the others do:

energy, x0 = draw(1000)  # others
with torch.no_grad():
    searches = {
        name: torch.stack([
            energy.value(x)
            for x in bl.unrolled(bl.GradientDescent(), steps, acceleration=rule).trajectory(
                energy, x0
            )
        ]).mean(1)
        for name, rule in (("exact", bl.ExactLineSearch()), ("learned", search))
    }  # fmt: skip
for name, curve in searches.items():
    print(f"{name:8} line search: mean energy {curve[-1]:.3f} after {steps} steps")

# %%
# An optimizer, coordinate by coordinate
# --------------------------------------
#
# ``CoordinatewiseLSTM`` is one small network for every coordinate of every problem: it sees how the
# coordinate's gradient and its last move compare, remembers, and tells step and momentum. Trained
# for a minute on such quadratics, and for less on small networks that learn to tell digits
# (on one half of the digits; the test takes the other) by
# ``benchmarks/learned_optimizers.py``:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
rows = json.loads((root / "benchmarks/results/learned_optimizers.json").read_text())["rows"]
for row in rows:
    if "E, step 100" in row and "seed" not in row["method"]:
        print(f"{row['problems']:11} {row['method']:36} {row['E, step 100']:.1e} after 100 steps, "
              f"{row['E, step 1000']:.1e} after 1000")  # fmt: skip

# %%
# The guard
# ---------
#
# Beyond the hundred steps of its training nothing holds a learned rule. On these problems it does
# not diverge (its step is at most twice the solver's, its momentum below 1). But on the quadratics,
# at ten times as many steps, it has fallen behind Nesterov's method on many problems and in the
# mean, and on the way its energy was at times ten times what it had been at step 100. On the digits
# it stays ahead. Of the test problems, by the seed of the training:

for row in rows:
    if "rise" in row:
        print(f"{row['problems']:11} {row['method']:16} above its energy of step 100 at step 1000: "
              f"{row['rise']} of the problems; above its guard: {row['above guard']}")  # fmt: skip

# %%
# ``Guarded(rule)`` runs ``Nesterov()`` beside it: whenever the learned iterate is not better, it
# starts anew from the guard's. So it is never above its guard, at any step, on any problem.
#
# Parameters of an ``nn.Module`` are stepped by ``ByRule``, a ``torch.optim.Optimizer``; here with a
# rule that is *not* trained, which the guard keeps from harm:

model = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
data, target = torch.randn(100, 10), torch.randn(100, 1)
guarded = bl.Guarded(bl.CoordinatewiseLSTM(momentum=0.99))
optimizer = bl.ByRule(model.parameters(), guarded, step_size=0.2)


def closure():
    optimizer.zero_grad()
    loss = (model(data) - target).square().mean()
    loss.backward()
    return loss


losses = [optimizer.step(closure) for _ in range(50)]
print(f"mean squared error {losses[0]:.3f}, after 50 steps {losses[-1]:.3f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
for name, curve in searches.items():
    axes[0].semilogy(curve, ".-", label=name, color="C0" if name == "learned" else "0.5")
axes[0].set(title="line searches on quadratics", xlabel="step", ylabel="mean energy")
axes[0].legend()
colors = ("C0", "C2", "C1", "0.4", "0.7")
for axis, problems in zip(axes[1:], ("quadratics", "digits"), strict=True):
    mine = [row for row in rows if row["problems"] == problems]
    for row in mine:
        if row["method"].startswith("learned, seed") and "guarded" not in row["method"]:
            axis.loglog(range(1, 1001), row["curve"][1:], color="C0", lw=0.8, alpha=0.6)
    named = [row for row in mine if "seed" not in row["method"]]
    for row, color in zip(named, colors, strict=True):
        dashes = "--" if row["method"] == "learned, guarded" else "-"
        axis.loglog(range(1, 1001), row["curve"][1:], dashes, color=color, label=row["method"])
    axis.axvline(100, color="0.85", zorder=0)
    axis.set(title=f"{problems}: trained for 100 steps", xlabel="step")
    axis.legend(fontsize=7, loc="lower left")
plt.show()
