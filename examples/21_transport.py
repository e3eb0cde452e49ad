r"""
Transport
=========

The cheapest way to carry one heap of sand to another is a lower level, too: a linear program over
plans. Smoothed by entropy its solution is the fixed point of Sinkhorn's iteration, which the
library differentiates as every other. And the distance that it defines makes of diffusion a
gradient flow.
"""

# %%
# Plans
# -----
#
# Two point clouds, the plan for two blurs, and how soon Sinkhorn's iteration finds it. It is slow
# where the blur is small; Anderson mixing learns from the last sweeps.

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(1)
torch.set_default_dtype(torch.float64)
n = 24
angle = torch.linspace(0, 3.0, n)
x = torch.stack([angle.cos(), angle.sin()], 1)[None] + 0.05 * torch.randn(1, n, 2)
y = torch.stack([1 - angle.cos(), 0.6 - angle.sin()], 1)[None] + 0.05 * torch.randn(1, n, 2)
mass = torch.full((n,), 1 / n)


def cost(x, y):
    return (x[:, :, None] - y[:, None]).square().sum(3)


plans = {blur: bl.sinkhorn(cost(x, y), mass, mass, blur=blur, tol=1e-8) for blur in (0.3, 0.03)}
exact = bl.wasserstein2(x, y)
for blur, plan in plans.items():
    print(f"blur {blur}: cost {(plan * cost(x, y)).sum():.4f}, exact {exact.item():.4f}")

sweeps = (5, 10, 20, 40, 80, 160)
rules = {"plain": bl.Plain(), "Anderson": bl.AndersonMixing()}
errors = {
    name: [
        float(
            (
                bl.sinkhorn(
                    cost(x, y), mass, mass, blur=0.03, acceleration=rule, tol=1e-15, max_iter=k,
                    on_fail="ignore",
                ).sum(1)
                - mass
            ).abs().sum()
        )
        for k in sweeps
    ]
    for name, rule in rules.items()
}  # fmt: skip

# %%
# What was the cost?
# ------------------
#
# The plan has a gradient, so what it was made for can be learned from it. Here the cost is
# :math:`\sum_d s_d |x_d - y_d|^2` with unknown scales :math:`s`; seen is its plan.

scales, blur = torch.tensor([1.0, 3.0]), 0.1


def scaled(log_scales):
    parts = (x[:, :, None] - y[:, None]).square()
    return bl.sinkhorn((log_scales.exp() * parts).sum(3), mass, mass, blur=blur, tol=1e-8)


seen = scaled(scales.log())
log_scales = torch.zeros(2, requires_grad=True)
optimizer = torch.optim.LBFGS([log_scales], line_search_fn="strong_wolfe", max_iter=40)


def closure():
    optimizer.zero_grad()
    loss = 1e3 * (scaled(log_scales) - seen).square().sum()
    loss.backward()
    return loss


optimizer.step(closure)
print("scales of the cost:", [round(s, 4) for s in log_scales.detach().exp().tolist()])

# %%
# Diffusion as a gradient flow
# ----------------------------
#
# Jordan, Kinderlehrer and Otto: the heat equation is the steepest descent of the entropy in the
# distance :math:`W_2`,
#
# .. math::
#    \mu_{k+1} = \operatorname{argmin}_\mu\; \int\!\mu\log\mu + \tfrac{1}{2\tau} W_2^2(\mu, \mu_k),
#
# and with :math:`\int\mu^2` in the place of the entropy it is the porous medium equation
# :math:`\partial_t\mu = \Delta\mu^2`. In one dimension a measure is its quantile function
# :math:`X`, :math:`W_2^2` is :math:`|X - X_k|^2`, and :math:`\mu = 1/X'`: a step is a data term and
# a term of differences. The entropy becomes a logarithmic barrier.

count, steps, end = 300, 25, 0.5
tau = end / steps
levels = (torch.arange(count) + 0.5) / count
difference = bl.Matrix((torch.eye(count).roll(1, 1) - torch.eye(count))[:-1])


def heat(X):
    energy = bl.LeastSquares(X, weight=1 / tau) + bl.LogBarrier() @ difference
    return bl.solve(energy, x0=X, solver=bl.ADMM(), tol=1e-5).x


def spread(X):  # mean of mu over mu, count times: sum 1 / (count X')
    gaps = X.diff(dim=1)
    return torch.where(gaps > 0, 1 / (count * gaps.clamp_min(1e-300)), torch.inf).sum(1)


def porous(X):
    energy = bl.LeastSquares(X, weight=1 / tau) + bl.Potential(spread)
    return bl.solve(energy, x0=X, solver=bl.Newton(), tol=1e-8).x


normal = torch.distributions.Normal(0.0, 1.0).icdf(levels)[None]


def barenblatt(z, t):
    """The porous medium's self-similar solution of mass 1."""
    edge = (9 * t) ** (1 / 3)
    return (edge**2 - z**2).clamp(min=0) / (12 * t), edge


def barenblatt_quantiles(t):
    _, edge = barenblatt(torch.zeros(1), t)
    return 2 * edge * ((2 * levels - 1).asin() / 3).sin()[None]


flows = {"heat": [0.4 * normal], "porous medium": [barenblatt_quantiles(0.05)]}
for _ in range(steps):
    flows["heat"].append(heat(flows["heat"][-1]))
    flows["porous medium"].append(porous(flows["porous medium"][-1]))
deviation = (0.4**2 + 2 * end) ** 0.5
middle = slice(count // 20, -count // 20)
error = (flows["heat"][-1] - deviation * normal)[0, middle].abs().max()
print(f"heat: quantiles off by {error:.3f} of a law of deviation {deviation:.3f}")
error = (flows["porous medium"][-1] - barenblatt_quantiles(0.05 + end))[0].abs().max()
print(f"porous medium: off by {error:.3f}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 4, figsize=(15, 3.7), layout="constrained")
plan = plans[0.03][0]
for i, j in (plan > 0.2 / n).nonzero().tolist():
    width = float(n * plan[i, j])
    axes[0].plot(*zip(x[0, i].tolist(), y[0, j].tolist(), strict=True), color="0.4", lw=2 * width)
axes[0].plot(*x[0].T, "o", color="C0")
axes[0].plot(*y[0].T, "o", color="C1")
axes[0].set(title="a plan, blur 0.03", aspect="equal")
for name, values in errors.items():
    axes[1].semilogy(sweeps, values, ".-", label=name)
axes[1].set(title="marginal's error", xlabel="sweeps")
axes[1].legend()
grid = torch.linspace(-4, 4, 400)
for axis, (name, states) in zip(axes[2:], flows.items(), strict=True):
    for color, k in zip(("C0", "C1", "C2"), (0, 5, steps), strict=True):
        X = states[k][0]
        mids, density = (X[1:] + X[:-1]) / 2, 1 / (count * X.diff())
        t = k * tau
        axis.plot(mids, density, color=color, label=f"t = {t:.1f}")
        known = (
            torch.distributions.Normal(0.0, (0.16 + 2 * t) ** 0.5).log_prob(grid).exp()
            if name == "heat"
            else barenblatt(grid, 0.05 + t)[0]
        )
        axis.plot(grid, known, "k:", lw=1)
    axis.set(title=f"{name}, dotted: known", xlim=(-3, 3))
    axis.legend()
plt.show()
