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
# A matrix game
# -------------
#
# A penalty: the kicker aims left or right, the keeper dives left or right, and the matrix :math:`P`
# has the chances of a goal. The keeper minimises over mixed strategies :math:`y` what the best
# answer brings,
#
# .. math:: v(P) = \min_{y \ge 0,\; \sum y = 1} \; \max_i \; (P y)_i .
#
# The value has its gradient by ``bl.minimum``, the chance that the kicker picks the row times the
# chance of the column; the strategy by ``bl.argmin``. Let the keeper train for shots to the left:


def chances(p):  # rows: aim, columns: dive
    return torch.stack([torch.stack([p, torch.tensor(0.95)]), torch.tensor([0.93, 0.7])])


def penalty(p):
    return bl.Largest() @ bl.Matrix(chances(p)) + bl.Simplex()


levels = torch.linspace(0.3, 0.9, 13)
values, dives, value_slopes, dive_slopes = ([] for _ in range(4))
for level in levels:
    p = level.clone().requires_grad_()
    value = bl.minimum(penalty(p), x0=torch.full((1, 2), 0.5))
    dive = bl.argmin(penalty(p), x0=torch.full((1, 2), 0.5))[0, 0]
    values.append(value.item())
    dives.append(dive.item())
    value_slopes.append(torch.autograd.grad(value.sum(), p)[0].item())
    dive_slopes.append(torch.autograd.grad(dive, p)[0].item())
span = levels - 0.95 + 0.7 - 0.93  # of two by two there is a formula
off = (torch.tensor(values) - (0.7 * levels - 0.95 * 0.93) / span).abs().max()
print(f"goals {values[-1]:.3f} -> {values[0]:.3f}, dives to the left {dives[-1]:.2f} -> "
      f"{dives[0]:.2f}; the value is off the formula by {off:.0e}")  # fmt: skip

# %%
# The better he is on the left, the *less* he dives there: the kicker has learned, too.
#
# The picture
# -----------

figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
for heights, slopes, label, color in (
    (values, value_slopes, "goals, the value", "C0"),
    (dives, dive_slopes, "dives to the left", "C1"),
):
    axes[3].plot(levels, heights, "o", color=color, label=label)
    for level, height, slope in zip(levels.tolist(), heights, slopes, strict=True):
        ends = torch.tensor([-0.02, 0.02])
        axes[3].plot(level + ends, height + slope * ends, color=color, lw=2)
axes[3].set(title="a penalty, with gradients", xlabel="goals if both choose left")
axes[3].legend()
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
