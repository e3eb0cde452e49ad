r"""
When to stop
============

Follow the gradient flow of an energy from the noisy data: first the noise goes, then the image.
Somewhere between lies the best time to stop, and it is a parameter like every other:
``bl.layers.GradientFlow`` learns it, with the energy, as a problem of optimal control.

.. math::
   \min_{T,\,\theta}\; J(x(T)) \quad\text{with}\quad \dot x = -\nabla E_\theta(x),\quad x(0) = y
"""

# %%
# The derivative in the stopping time
# -----------------------------------
#
# In continuous time :math:`dJ/dT = -\langle\nabla J(x(T)), \nabla E(x(T))\rangle`: a product of two
# things known at the end. The computed flow takes steps of :math:`h = T/S`, and the derivative of
# *what is computed* comes from the discrete adjoint, backpropagation through the steps. A signal of
# 40 samples, smoothed by diffusion that spares edges:

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl
from bilevel.layers import GradientFlow

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
clean = torch.tensor([0.0, 1.0, 0.3, -0.5]).repeat_interleave(10)[None]
noisy = clean + 0.1 * torch.randn_like(clean)
energy = bl.Huber(0.05) @ bl.Gradient(dims=1)


def loss(stop, steps, implicit=False):
    flow = GradientFlow(stop, steps, implicit=implicit)
    if implicit:  # the data by their prox
        x = flow(2.0 * bl.LeastSquares(noisy) + bl.Potential(energy.value), noisy)
    else:
        x = flow(energy, noisy)
    return (x - clean).square().sum() / 2, flow, x


stop, rows = 0.1, []
for steps in (8, 16, 32, 64, 128, 256):
    value, flow, x = loss(stop, steps)
    adjoint = torch.autograd.grad(value, flow.log_stop, retain_graph=True)[0] / stop
    with torch.no_grad():
        h = 1e-5
        differences = (loss(stop + h, steps)[0] - loss(stop - h, steps)[0]) / (2 * h)
        formula = -((x - clean) * energy.grad(x)).sum()
    scale = differences.abs()
    rows.append([steps, *(float((d - differences).abs() / scale) for d in (adjoint, formula))])
    print("{:4} steps: adjoint off by {:.0e}, the continuous formula by {:.0e}".format(*rows[-1]))

# %%
# The best time
# -------------
#
# Learned by a dozen steps of L-BFGS; there the derivative vanishes, the first-order condition.


def learned(steps):
    flow = GradientFlow(0.02, steps)
    optimizer = torch.optim.LBFGS(flow.parameters(), line_search_fn="strong_wolfe", max_iter=30)

    def closure():
        optimizer.zero_grad()
        value = (flow(energy, noisy) - clean).square().sum() / 2
        value.backward()
        return value

    optimizer.step(closure)
    value = closure()
    return float(flow.stop.detach()), float(value.detach()), float(flow.log_stop.grad)


T, least, slope = learned(32)
print(f"learned T = {T:.4f}, J = {least:.4f}, dJ/dlog T = {slope:.0e}")
times = torch.logspace(-2.5, 0.3, 40)
with torch.no_grad():
    curve = [float(loss(float(t), 200)[0]) for t in times]
    path = GradientFlow(T, 32).trajectory(energy, noisy)
    late = GradientFlow(10 * T, 320)(energy, noisy)

# %%
# Photographs
# -----------
#
# Eight filters, their potentials, the weight of the data and :math:`T` were learned together, for
# ten semi-implicit steps. ``benchmarks/stopping_time.py`` did it:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
stored = json.loads((root / "benchmarks/results/stopping_time.json").read_text())["rows"]
for row in stored:
    if "PSNR" in row:
        print(f"{row['what']:45} {row['PSNR']:.2f} dB")
factors, quality = zip(*((r["factor"], r["PSNR"]) for r in stored if "factor" in r), strict=True)
solved = max(r["PSNR"] for r in stored if r["what"].startswith("the minimiser"))

# %%
# An energy for every step
# ------------------------
#
# A *variational network* goes one step further: filters, activations and the weight of the data
# are learned for each step anew. The flow is handed a function that gives the energy of the step,
# and ``VariationalNetwork`` holds the parameters; :math:`T` is learned as before. Activations are
# free, sums of Gaussians. ``benchmarks/image_networks.py`` trained one with an energy for all steps
# and one with an energy for each, in 300 updates on patches of 32 x 32; the flow above had 600 on
# patches of 64 x 64, so what is to be compared are these two:

trained = json.loads((root / "benchmarks/results/image_networks.json").read_text())["rows"]
networks = [row for row in trained if row["network"].startswith("variational")]
for row in networks:
    print(f"{row['network']}: {row['PSNR']:.2f} dB, {row['parameters']} parameters, "
          f"T = {row['T']:.2f}")  # fmt: skip
offsets = torch.linspace(-0.5, 0.5, 201)
knots = torch.linspace(-0.5, 0.5, 9)
bumps = (-((offsets[:, None] - knots) / (knots[1] - knots[0])).square() / 2).exp()
activations = torch.tensor(networks[-1]["activation"]) @ bumps.T  # (steps, filters, 201)

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 5, figsize=(18, 3.7), layout="constrained")
steps, adjoint, formula = zip(*rows, strict=True)
axes[0].loglog(steps, formula, ".-", color="C1", label="continuous formula")
axes[0].loglog(steps, adjoint, ".-", color="C0", label="discrete adjoint")
axes[0].set(title="error of $dJ/dT$, relative", xlabel="steps")
axes[0].legend()
axes[1].semilogx(times, curve, color="C0")
axes[1].plot(T, least, "o", color="C1", label=f"learned: T = {T:.3f}")
axes[1].set(title="$J(x(T))$ of a signal", xlabel="T")
axes[1].legend()
axes[2].plot(noisy[0], ".", color="0.6", label="noisy")
axes[2].plot(path[-1][0], color="C0", label="at T")
axes[2].plot(late[0], "--", color="C1", label="at 10 T")
axes[2].set(title="the signal")
axes[2].legend()
axes[3].semilogx(factors, quality, ".-", color="C0", label="the flow")
axes[3].axvline(1, color="0.7")
axes[3].axhline(solved, color="C2", ls="--", label="solved, best weight of a grid")
axes[3].set(title="photographs: PSNR, dB", xlabel="time / learned T")
axes[3].legend()
for t, colour in ((0, "C0"), (3, "C2"), (7, "C1")):
    axes[4].plot(offsets, activations[t, 0], color=colour, label=f"filter 1, step {t + 1}")
    axes[4].plot(offsets, activations[t, 1], "--", color=colour, label=f"filter 2, step {t + 1}")
axes[4].set(title="learned activations")
axes[4].legend(fontsize=7)
plt.show()
