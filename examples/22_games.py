r"""
Games
=====

In a game each player goes down a slope of his own, and the slopes together are no gradient:
following them leads in circles. Two methods that look ahead, or back, lead to the equilibrium. It
has a derivative as every other fixed point, so the rules of a game can be learned from how it is
played.
"""

# %%
# Circles
# -------
#
# :math:`\min_u \max_v uv`. The field :math:`F(u, v) = (v, -u)` turns; what is sought has
# :math:`F = 0`. One step of forward-backward leads outwards, however small it is.

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
circle = bl.VectorField(lambda x: torch.stack([x[:, 1], -x[:, 0]], 1))
start = torch.tensor([[1.0, 0.2]])
solvers = {
    "forward-backward": bl.ForwardBackward(step_size=0.2),
    "extragradient": bl.ExtraGradient(step_size=0.2),
    "optimistic": bl.Optimistic(step_size=0.2),
}
paths = {
    name: torch.cat(bl.unrolled(solver, 60).trajectory(circle, start))
    for name, solver in solvers.items()
}
for name, path in paths.items():
    print(f"{name:18} is {path[-1].norm():.3f} from the equilibrium after 60 steps")

# %%
# A market
# --------
#
# Five firms sell into one market: firm :math:`i` chooses :math:`x_i \ge 0`, the price is
# :math:`p = a - \sum_j x_j`, its cost :math:`c_i x_i + d x_i^2/2`, and it maximises its own profit
# (Cournot). No function is minimised by all of them together when firms weigh each other unequally:
# firm :math:`i` feels :math:`\sum_j G_{ij} x_j`.

firms, days = 5, 12
G = 0.4 + 0.2 * torch.randn(firms, firms)


def market(cost, demand):  # demand (days, 1)
    """What the firms sell, day by day."""

    def field(x):
        return x @ G.T + x + cost - demand

    return bl.argmin(
        bl.VectorField(field) + bl.NonNegative(), x0=torch.zeros(days, firms),
        solver=bl.ExtraGradient(step_size=0.1), tol=1e-9,
    )  # fmt: skip


true_cost = torch.tensor([0.2, 0.5, 0.6, 1.1, 0.9])
demand = torch.linspace(0.3, 4.0, days)[:, None]
sold = market(true_cost, demand)
print(f"{int((sold == 0).sum())} of {sold.numel()} times a firm stays out of the market")

# %%
# What do the firms pay?
# ----------------------
#
# Seen is what they sold. The costs are learned by the gradient of the equilibrium, through the
# constraints that hold there.

log_cost = torch.full((firms,), 0.3).log().requires_grad_()
optimizer, curve = torch.optim.Adam([log_cost], lr=0.05), []
for _ in range(150):
    loss = (market(log_cost.exp(), demand) - sold).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    curve.append((log_cost.detach().exp() - true_cost).abs().max().item())
print("costs:", [round(c, 3) for c in log_cost.detach().exp().tolist()])

# %%
# The picture
# -----------

figure, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for name, path in paths.items():
    axes[0].plot(*path.T, ".-", ms=3, label=name)
axes[0].plot(0, 0, "k+")
axes[0].set(title="min over u, max over v of uv", aspect="equal", xlim=(-2.2, 2.2), ylim=(-2, 2.2))
axes[0].legend(loc="lower right", fontsize=8)
for i in range(firms):
    axes[1].plot(demand[:, 0], sold[:, i], ".-", label=f"cost {true_cost[i]:.1f}")
axes[1].set(title="what each firm sells", xlabel="demand")
axes[1].legend()
axes[2].semilogy(curve)
axes[2].set(title="learned costs: largest error", xlabel="step")
plt.show()
