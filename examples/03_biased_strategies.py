r"""
How biased are the cheap strategies?
====================================

One backward step, ten, the whole run: there are many ways to get *some* gradient from a solver. We
measure how far each is from the derivative of the solution, on a lasso and on total variation.
"""

# %%
# Two problems
# ------------
#
# Each has one parameter vector and a random linear loss :math:`\langle c, x\rangle`. Total
# variation is written by its differences here, and so iterated by a primal-dual method:
# ``TotalVariation(dims=1)`` has an exact prox, which leaves nothing to be biased.

import warnings

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)

A = torch.randn(40, 80) / 40**0.5
b = A[:, :8].sum(1) + 0.1 * torch.randn(40)
y = torch.tensor([0.0, 2.0, 1.0]).repeat_interleave(20) + 0.3 * torch.randn(60)

problems = {
    "lasso, 40 x 80": (lambda b: bl.LeastSquares(b[None]) @ bl.Matrix(A) + 0.1 * bl.L1(), b),
    "total variation, n = 60": (
        lambda y: bl.LeastSquares(y[None]) + 0.5 * bl.L1() @ bl.Gradient(1),
        y,
    ),
}


def gradient(energy, theta, **options):
    """The gradient of <c, x(theta)>, and what is known of it."""
    theta, report = theta.clone().requires_grad_(), bl.Certificate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.ConvergenceWarning)  # stopped early on purpose
        x = bl.argmin(energy(theta), on_fail="warn", report=report, **options)
        c = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(1))
        (x[0] @ c).backward()
    return theta.grad, report


# %%
# The reference is ``FixedPoint`` with a dense solve, on a solution of 13 digits. It is checked
# against central differences before it judges the others:

h = 1e-5
references = {}
for name, (energy, theta) in problems.items():
    reference, _ = gradient(energy, theta, tol=1e-13, diff=bl.FixedPoint(bl.Dense()))
    references[name] = reference
    direction = torch.randn(len(theta), generator=torch.Generator().manual_seed(2))
    ends = [bl.solve(energy(theta + s * h * direction), tol=1e-13).x[0] for s in (1, -1)]
    c = torch.randn(len(ends[0]), generator=torch.Generator().manual_seed(1))
    quotient = (ends[0] - ends[1]) @ c / (2 * h)
    error = abs(quotient - reference @ direction) / abs(quotient)
    print(f"{name}: central differences and reference differ by {error.item():.1e}")

# %%
# The strategies
# --------------
#
# All with ``k`` backward steps: ``Truncated(k)`` sums ``k`` terms of the Neumann series at the
# converged solution; ``Unroll()`` differentiates a run of ``k`` steps from the start, here with the
# plain iteration and with the solver's own acceleration. ``OneStep()`` is ``Truncated(1)``, and
# ``Unroll(last=k)`` gives the numbers of ``Truncated(k)`` for ``k`` times the memory. For
# comparison ``FixedPoint`` with GMRES, which solves the whole system, at the number of products
# that it took.

counts = [1, 3, 10, 30, 100, 300, 1000]
short = {"tol": 1e-15, "diff": bl.Unroll()}  # never reached: the run ends after k steps
curves = {
    "Truncated(k) at the solution": lambda k: {"diff": bl.Truncated(k)},
    "Unroll(), k plain steps": lambda k: {"max_iter": k, "acceleration": bl.Plain(), **short},
    "Unroll(), k accelerated steps": lambda k: {"max_iter": k, **short},
}


def error(found, name):
    return ((found - references[name]).norm() / references[name].norm()).item()


figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
for axes, (name, (energy, theta)) in zip(panels, problems.items(), strict=True):
    for label, options in curves.items():
        errors = [error(gradient(energy, theta, **options(k))[0], name) for k in counts]
        axes.loglog(counts, errors, "o-", ms=4, label=label)
        print(f"{name:24} {label:30}", *(f"{e:.0e}" for e in errors))
    one, _ = gradient(energy, theta, diff=bl.OneStep())
    axes.plot(1, error(one, name), "k*", ms=12, label="OneStep()")
    solved, report = gradient(energy, theta, diff=bl.FixedPoint(bl.GMRES(tol=1e-8)))
    products, left = report.adjoint_iterations, error(solved, name)
    axes.plot(products, left, "kD", label="FixedPoint(GMRES())")
    axes.annotate(f"{products} products ", (products, left), ha="right", va="center")
    print(f"{name:24} FixedPoint(GMRES()): {left:.0e} after {products} products")
    axes.axhline(1, color="0.8", zorder=0)
    axes.set(title=name, xlabel="k, backward steps")
panels[0].set_ylabel("relative error of the gradient")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
plt.show()

# %%
# A truncation starts to pay once its length passes the time constant of the contraction; before
# that it leaves most of the gradient out. Unrolling waits, in addition, until the run has found the
# support or the jumps. The numbers for more problems are on
# :doc:`their page </strategies_bias>`.
