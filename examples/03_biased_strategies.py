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
# Each has one parameter vector and a random linear loss :math:`\langle c, x\rangle`.

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
        lambda y: bl.LeastSquares(y[None]) + 0.5 * bl.TotalVariation(dims=1),
        y,
    ),
}


def gradient(energy, theta, **options):
    """The gradient of <c, x(theta)>, and the number of steps of the run."""
    theta, report = theta.clone().requires_grad_(), bl.Certificate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.ConvergenceWarning)  # stopped early on purpose
        x = bl.argmin(energy(theta), on_fail="warn", report=report, **options)
        c = torch.randn(x.shape[1], generator=torch.Generator().manual_seed(1))
        (x[0] @ c).backward()
    return theta.grad


# %%
# The reference is ``FixedPoint`` on a solution of 13 digits. It is checked against central
# differences before it judges the others:

h = 1e-5
references = {}
for name, (energy, theta) in problems.items():
    reference = references[name] = gradient(energy, theta, tol=1e-13, diff=bl.FixedPoint())
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
# ``Unroll(last=k)`` gives the numbers of ``Truncated(k)`` for ``k`` times the memory.

counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
plain = {"acceleration": bl.Plain(), "diff": bl.Unroll()}
curves = {
    "Truncated(k) at the solution": lambda k: {"diff": bl.Truncated(k)},
    "Unroll(), k plain steps": lambda k: {"max_iter": k, "tol": 1e-15, **plain},
    "Unroll(), k accelerated steps": lambda k: {"max_iter": k, "tol": 1e-15, "diff": bl.Unroll()},
}

figure, panels = plt.subplots(1, 2, figsize=(11, 4), layout="constrained", sharey=True)
for axes, (name, (energy, theta)) in zip(panels, problems.items(), strict=True):
    exact = references[name]
    for label, options in curves.items():
        errors = [
            ((gradient(energy, theta, **options(k)) - exact).norm() / exact.norm()).item()
            for k in counts
        ]
        axes.loglog(counts, errors, "o-", ms=4, label=label)
        print(f"{name:24} {label:30}", *(f"{e:.0e}" for e in errors))
    axes.plot(1, ((gradient(energy, theta, diff=bl.OneStep()) - exact).norm() / exact.norm()).item(), "k*", ms=12, label="OneStep()")  # fmt: skip
    axes.axhline(1, color="0.8", zorder=0)
    axes.set(title=name, xlabel="k, backward steps")
panels[0].set_ylabel("relative error of the gradient")
panels[0].legend(loc="lower left")
plt.show()
