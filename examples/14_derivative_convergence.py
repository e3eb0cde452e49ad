r"""
How fast do derivatives converge?
=================================

An iteration converges, and autograd can differentiate every step of it. Whether these derivatives
converge as well, and how fast, is a question of its own: with the same rate and a factor :math:`k`
for smooth energies, with the accelerated rate for accelerated methods, and not at all where the
iteration circles around a kink. The last case is found by the certificate.
"""

# %%
# The rates
# ---------
#
# Ridge regression, condition number 100, and the same with an :math:`\ell_1` norm; the derivative
# in the weight :math:`w`. Two ways to get it along the iterates: the tangents of all steps,
# *unrolled*, and the same recursion with every iterate replaced by the solution,
# :math:`d_{k+1} = \partial_z T(z^*)\, d_k + \partial_w T(z^*)`, which is what ``FixedPoint`` sums
# up. Theory says :math:`|d_k - d| = O(k\,q^k)` for the first and
# :math:`O(q^k)` for the second, with
#
# .. math::
#    q_{\text{gradient descent}} = \frac{L - m}{L + m}, \qquad
#    q_{\text{heavy ball}} = \frac{\sqrt L - \sqrt m}{\sqrt L + \sqrt m},
#
# and, for the non-smooth ones, the spectral radius of :math:`\partial_z T(z^*)` on the manifold
# that they have found [Mehmood, Ochs 2020, 2022]. The curves are stored by
# ``benchmarks/derivative_convergence.py``; dotted is the slope of theory.

import json
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = here.parent / "benchmarks" / "results" / "derivative_convergence.json"
rows = {row["method"]: row for row in json.loads(stored.read_text())["rows"]}
rates = {name: row for name, row in rows.items() if "q, theory" in row}

figure, panels = plt.subplots(1, len(rates), figsize=(13, 3.4), layout="constrained", sharey=True)
for axes, (name, row) in zip(panels, rates.items(), strict=True):
    curves = dict(row["curves"])
    k = np.array(curves.pop("k"))
    for kind, errors in curves.items():
        axes.semilogy(k, errors, label=kind, lw=1.2)
    middle = len(k) // 2
    line = curves["at the solution"][middle] * row["q, theory"] ** (k - k[middle])
    axes.semilogy(k, 0.1 * line, "k:", lw=1, label="theory's slope")
    axes.set(title=f"{name}\nq = {row['q, theory']:.3f}", xlabel="k", ylim=(1e-14, 10))
    print(f"{name:18} log q: unrolled {row['unrolled: off']}, at the solution "
          f"{row['at the solution: off']} off theory's")  # fmt: skip
panels[0].set_ylabel("relative error")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
plt.show()

# %%
# Unrolled tangents lag behind their iterates by the factor :math:`k`; acceleration is inherited.
#
# Where derivatives do not converge
# ---------------------------------
#
# A valley with two walls of different steepness,
# :math:`E(x, \theta) = \tfrac12 (x - \theta)^2 + 4 \max(0, -x)^2`, has a continuous gradient, and
# a kink in its solution at :math:`\theta = 0`: :math:`dx/d\theta` is 1 on one side and
# :math:`\tfrac{1}{9}` on the other. The heavy ball runs into :math:`x = 0` from both sides in turn.
# Its iterates converge linearly; its derivatives alternate between the two walls and never settle
# [Bolte, Pauwels, Vaiter 2022].


def energy(theta):
    return bl.LeastSquares(theta) + bl.Potential(
        lambda x: 4 * (-x).relu().square().sum(1), constant=8.0
    )


def gradient(x, theta):
    return x - theta - 8 * (-x).relu()


theta = torch.zeros(()).requires_grad_()
x = before = torch.tensor(1.0)
iterates, derivatives = [], []
for _ in range(150):
    x, before = x - 0.2 * gradient(x, theta) + 0.8 * (x - before), x
    iterates.append(abs(x.item()))
    derivatives.append(torch.autograd.grad(x, theta, retain_graph=True)[0].item())

# %%
# The certificate of the solution at the same point:

data = torch.zeros(1, 1, requires_grad=True)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    solution = bl.argmin(energy(data), tol=1e-12)
    _, certificate = bl.hypergradient(solution.sum(), [data], probe=True)
print(caught[-1].category.__name__, caught[-1].message)
print(f"influence of the kink: {certificate.influence:.2f}")
print(bl.explain(energy(data.detach()), strategy=bl.Unroll()))

# %%
# The derivative of a least value
# -------------------------------
#
# Of :math:`p(u) = \min_x E(x, u)` less is needed: neither strong convexity nor a unique
# :math:`x`. By duality :math:`p'(u)` is the solution of the dual problem, and a method whose values
# converge like :math:`1/k^2` has it with an error of :math:`O(1/k)`, as the dual of a smooth term
# is strongly concave [Mehmood, Ochs 2021]. Two energies: total variation denoising by its dual, and
# a lasso in which every column stands twice, so that :math:`x` has no derivative at all.
# ``minimum`` gives the same number, by the envelope theorem at the saddle point:

torch.manual_seed(0)
A, u = torch.randn(20, 8), torch.randn(1, 20).requires_grad_()
twice = bl.Matrix(torch.cat([A, A], 1))
value = bl.minimum(bl.LeastSquares(u) @ twice + 0.5 * bl.L1(), tol=1e-12)
(found,) = torch.autograd.grad(value.sum(), u)
dual = u - twice(bl.solve(bl.LeastSquares(u) @ twice + 0.5 * bl.L1(), tol=1e-12).x)
print(f"minimum's gradient and the dual solution differ by {(found - dual).abs().max():.0e}")

figure, panels = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
panels[0].semilogy(iterates)
panels[0].set(title=r"heavy ball at a kink: $|x_k - x|$", xlabel="k")
panels[1].axhspan(1 / 9, 1, color="0.9", zorder=0, label="between the two sides")
panels[1].plot(derivatives, lw=1)
panels[1].set(title=r"heavy ball at a kink: $dx_k/d\theta$", xlabel="k")
panels[1].legend()
axes = panels[2]
for name, row in rows.items():
    if "log-log slope" in row:
        axes.loglog(row["curves"]["k"], row["curves"]["dual solution"], lw=1, label=name)
k = np.array([10, 2000])
axes.loglog(k, 30 / k, "k:", label="1/k")
axes.set(title="the derivative of a least value", xlabel="k", ylabel="relative error")
axes.legend()
plt.show()
