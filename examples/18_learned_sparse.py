r"""
Learned sparse codes
====================

A solver that must stop after sixteen steps is a network of sixteen layers. What should its
constants be? Not those that promise convergence: those that are best *after sixteen steps*. They
are found by the gradient through the steps, and ``bl.unrolled`` makes any solver such a network.
"""

# %%
# Step sizes that reach the solution
# ----------------------------------
#
# The lower level is a lasso; the target is its own solution, the fixed point of its optimality
# condition, found by ``bl.argmin``. Learned are only the step sizes of sixteen steps of ISTA, one
# number each, on random data:

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
A = torch.randn(50, 80)
A /= A.norm(dim=0)
steps = 16


def lasso(y):
    return bl.LeastSquares(y) @ bl.Matrix(A) + 0.1 * bl.L1()


def draw(count):
    """(y, the solution of its lasso)"""
    y = (torch.randn(count, 80) * (torch.rand(count, 80) < 0.1)) @ A.T
    with torch.no_grad():
        return y, bl.argmin(lasso(y), x0=y.new_zeros(count, 80), tol=1e-7)


def distance(x, solution):
    return 10 * torch.log10((x - solution).square().sum() / solution.square().sum())


net = bl.unrolled(bl.ForwardBackward(), steps, learn=["step_size"])
y, solution = draw(1024)
x0 = y.new_zeros(len(y), 80)
optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
for part in torch.randperm(1024).reshape(-1, 64).repeat(8, 1):
    loss = distance(net(lasso(y[part]), x0[part]), solution[part])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

y, solution = draw(200)  # others
x0 = y.new_zeros(200, 80)
nets = {
    "ISTA": bl.unrolled(bl.ForwardBackward(), steps),
    "FISTA": bl.unrolled(bl.ForwardBackward(), steps, acceleration=bl.Nesterov()),
    "ISTA, learned step sizes": net,
}
with torch.no_grad():
    curves = {
        name: [float(distance(x, solution)) for x in one.trajectory(lasso(y), x0)]
        for name, one in nets.items()
    }
for name, curve in curves.items():
    print(f"{name:25} {curve[-1]:6.1f} dB from the solution after {steps} steps")

# %%
# The learned step sizes lie on both sides of :math:`2/L`, above which a constant step diverges.
# Nothing is promised for a seventeenth step.

factors = (0.95 * net.log_factors["step_size"].detach().exp()).tolist()
print("step sizes times L:", [round(factor, 2) for factor in factors])

# %%
# Free matrices
# -------------
#
# Now the code itself is the target: :math:`y = Ax` without noise, with :math:`A` of 250 x 500, and
# :math:`x` with one nonzero in ten. LISTA frees the matrices of each step; LISTA-CP couples them,
# :math:`x - W_k^*(Ax - y)`; LISTA-CPSS spares the largest entries from the threshold: a step of
# forward-backward on the *trimmed* :math:`\ell_1` norm. HyperLISTA learns *three numbers*. The six
# million numbers of LISTA start as ISTA, and need far longer than the few hundred steps given here.
# ``benchmarks/learned_sparse.py`` trained them:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
rows = json.loads((root / "benchmarks/results/learned_sparse.json").read_text())["rows"]
trained = [row for row in rows if "curve" in row]
print("method                                parameters  processor, s   NMSE, dB")
for row in trained:
    print(f"{row['method']:38}{row['parameters']:10}{row['seconds']:12.0f}{row['NMSE, dB']:12.1f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for name, curve in curves.items():
    axes[0].plot(curve, ".-", label=name)
axes[0].set(title="lasso: to its solution", xlabel="step", ylabel="distance, dB")
axes[0].legend()
axes[1].bar(range(1, steps + 1), factors, color="tab:green")
axes[1].axhline(2, color="0.3", ls="--")
axes[1].text(0.5, 9.0, "dashed: a constant step above diverges", color="0.3", va="bottom")
axes[1].set(title="learned step sizes, times $L$", xlabel="step", yscale="log")
for row in trained:
    style = "--" if "ISTA," in row["method"] else "-"
    axes[2].plot(row["curve"], style, label=f"{row['method']}: {row['parameters']}")
axes[2].set(title="codes of 500, and how many parameters", xlabel="step", ylabel="NMSE, dB")
axes[2].legend(fontsize=7)
plt.show()
