r"""
When the lower level is not convex
==================================

There is then no *the* minimiser, but branches of them. The solver ends on the one that its start
leads to; the derivative is that of this branch, and right, until the branch ends. Here is the
smallest example, with all that can happen, and what the certificate says of it.
"""

# %%
# Two wells
# ---------
#
# .. math::
#    E(x, \theta) = \tfrac14 x^4 - \tfrac12 x^2 - \theta x, \qquad x^3 - x = \theta.
#
# For :math:`|\theta| < 2/\sqrt{27}` there are two minima, and a maximum between them.

import math

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)
fold = 2 / math.sqrt(27)


def energy(theta):
    return bl.Potential(lambda x: (x**4 / 4 - x**2 / 2 - theta * x).sum(1))


def branch(theta, start, tol=1e-10):
    """(x, dx/dtheta, the certificate), one a sample, from a start."""
    theta, report = theta.clone().requires_grad_(), bl.Certificate()
    x = bl.argmin(
        energy(theta), x0=torch.full_like(theta.detach(), start), tol=tol, report=report,
        solver=bl.GradientDescent(step_size=0.2), acceleration=bl.Plain(), max_iter=200_000,
    )  # fmt: skip
    (slope,) = torch.autograd.grad(x.sum(), theta)
    return x.detach(), slope, report


theta = torch.linspace(-0.6, 0.6, 97)[:, None]
starts = {-1.5: "C0", 1.5: "C1"}
branches = {start: branch(theta, start) for start in starts}

# %%
# The derivative and its limits
# -----------------------------
#
# :math:`dx/d\theta = 1/(3x^2 - 1)`. It grows without bound where a branch ends, at the fold, and a
# little beyond, the solution has jumped to the other branch: a loss of :math:`x` has a jump there,
# which no gradient shows. Descent in :math:`\theta` stops before it, or leaps.

for x, slope, _ in branches.values():
    error = (slope - 1 / (3 * x**2 - 1)).abs() / slope
    print(f"largest slope {slope.max():.1f}, off by {error.max():.0e} of it at most")

# %%
# Stopped early
# -------------
#
# With a loose tolerance the gradient is that of another point. How wrong it is follows the
# contraction of the step, which tends to one at the fold: the same residual means less there. The
# certificate's *estimate* is the residual over one minus the contraction, for the solution; the
# gradient's error has the constant of a second derivative more, which grows as well.

near = fold - torch.logspace(-0.5, -3.5, 25)[:, None]
exact, right, _ = branch(near, -1.5)
loose = {tol: branch(near, -1.5, tol) for tol in (1e-3, 1e-5)}

# %%
# What a search sees
# ------------------
#
# The loss :math:`(x(\theta) - 0.2)^2` from the left branch, and its gradient, the arrows: right
# everywhere but silent about the jump.

target = 0.2
x, slope, _ = branches[-1.5]
loss, gradient = (x - target).square()[:, 0], (2 * (x - target) * slope)[:, 0]

figure, axes = plt.subplots(1, 4, figsize=(15, 3.7), layout="constrained")
every = torch.linspace(-1.3, 1.3, 400)
axes[0].plot(every**3 - every, every, ":", color="0.5", label="all stationary points")
for (start, color), (x, _, _) in zip(starts.items(), branches.values(), strict=True):
    axes[0].plot(theta, x, ".", ms=3, color=color, label=f"from {start}")
axes[0].set(title="branches", xlabel=r"$\theta$", ylabel="x", xlim=(-0.6, 0.6))
axes[0].legend(fontsize=8)
for color, (_, slope, _) in zip(starts.values(), branches.values(), strict=True):
    axes[1].semilogy(theta, slope, ".-", ms=3, color=color)
for end in (-fold, fold):
    axes[1].axvline(end, color="0.7", lw=1)
axes[1].set(title=r"$dx/d\theta$", xlabel=r"$\theta$")
for (tol, (_, slope, report)), color in zip(loose.items(), ("C2", "C3"), strict=True):
    away = (fold - near)[:, 0]
    axes[2].loglog(away, ((slope - right).abs() / right)[:, 0], color=color, label=f"tol {tol:g}")
    axes[2].loglog(away, report.estimate, "--", color=color, label="the estimate")
axes[2].set(title="relative error of the gradient", xlabel="distance to the fold")
axes[2].legend(fontsize=8)
axes[3].plot(theta, loss, ".", ms=3, color="C0")
for k in range(4, 97, 9):
    t, y, g = float(theta[k, 0]), float(loss[k]), float(gradient[k])
    dt = 0.04 / (1 + abs(g))
    axes[3].plot([t - dt, t + dt], [y - g * dt, y + g * dt], color="C1", lw=2)
axes[3].set(title="the loss from the left, and its slopes", xlabel=r"$\theta$")
plt.show()
