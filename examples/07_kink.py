r"""
Past a kink
===========

A loss of solutions may have kinks, and its best parameters often lie on one. A gradient method
comes to the kink and stalls there: the gradient is that of one side. Gradients sampled around the
point come from both sides, and what they agree on is the way along the kink.
"""

# %%
# The worst of four signals
# -------------------------
#
# Signals of a few slow waves and a few spikes, with noise, are explained by a lasso with two
# weights, one for the waves and one for the spikes:
#
# .. math::
#    x(w) = \underset{x}{\operatorname{argmin}} \;
#    \tfrac{1}{2} |Ax - \text{noisy}|^2 + w_1 |x_{\text{waves}}|_1 + w_2 |x_{\text{spikes}}|_1.
#
# The weights shall serve the signal that they serve worst: the loss is the largest of the four
# squared errors. It has a kink wherever two signals tie.

import matplotlib.pyplot as plt
import torch
from torch import nn

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(5)
n, count = 32, 4

time = (torch.arange(n) + 0.5) * torch.pi / n
cosines = (2 / n) ** 0.5 * torch.cos(time[:, None] * torch.arange(n))
cosines[:, 0] /= 2**0.5
A = bl.Matrix(torch.cat([cosines, torch.eye(n)], 1))  # (32, 64)

place = torch.arange(n)
chance = torch.cat([0.35 * (place < 10), 0.12 * (place >= n // 2)])
codes = (torch.rand(count, 2 * n, generator=rng) < chance) * 2
codes = codes * torch.randn(count, 2 * n, generator=rng)
clean = A(codes)
noisy = clean + 0.3 * torch.randn(count, n, generator=rng)
signals = [{"noisy": y, "clean": c} for y, c in zip(noisy, clean, strict=True)]


def estimate(noisy, weights):  # weights (..., 2)
    return A(bl.argmin(bl.LeastSquares(noisy) @ A + weights.repeat_interleave(n, -1) * bl.L1()))


class Code(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_weights = nn.Parameter(torch.tensor([0.05, 0.05]).log())

    def forward(self, noisy):
        return estimate(noisy, self.log_weights.exp())


def worst(model, batch):
    return (model(batch["noisy"]) - batch["clean"]).square().mean(1).max()


# %%
# Two methods from the same start
# -------------------------------


def learn(optimizer):
    """The points visited after each step, the losses there, and how many evaluations it took."""
    model, path = Code(), [torch.tensor([0.05, 0.05]).log()]
    result = bl.learn(
        model,
        signals,
        worst,
        optimizer=optimizer,
        steps=40,
        on_step=lambda step, row: path.append(model.log_weights.detach().clone()),
        progress=False,
    )
    evaluations = torch.tensor([row["evaluations"] for row in result.history]).cumsum(0)
    return torch.stack(path), [row["loss"] for row in result.history], evaluations


runs = {"L-BFGS": learn(None), "gradient sampling": learn(bl.GradientSampling)}
for name, (_, losses, evaluations) in runs.items():
    print(f"{name:18} loss {losses[-1]:.4f} after {evaluations[-1]} evaluations")

# %%
# L-BFGS ends where two signals tie: the gradient jumps there from one side to the other, its model
# of the curvature is that of the jump, and its line search accepts no step. Gradient sampling goes
# on, at the price of a handful of gradients a step.
#
# The picture
# -----------
#
# The loss over both weights, all points of the grid as one batch, with the paths; and the four
# errors along the gradient through the point where L-BFGS stopped, with their largest.

axis = torch.linspace(-3.2, 0.0, 33)
grid = torch.cartesian_prod(axis, axis)  # log weights (1681, 2)


def errors(points):  # (P, 2) -> (P, 4)
    pairs = noisy.repeat(len(points), 1), points.exp().repeat_interleave(count, 0)
    with torch.no_grad(), bl.accuracy(1e-5):
        x = estimate(*pairs)
    return (x - clean.repeat(len(points), 1)).square().mean(1).reshape(-1, count)


values = errors(grid).amax(1).reshape(len(axis), len(axis))

figure = plt.figure(figsize=(11, 6.5), layout="constrained")
panels = figure.subplot_mosaic("kkl;kks")

axes = panels["k"]
levels = torch.logspace(-1.3, -0.7, 25)
axes.contour(axis, axis, values.T, levels=levels, cmap="Greys_r", linewidths=0.7)
for name, (path, *_rest) in runs.items():
    axes.plot(*path.T, ".-", label=name)
    axes.plot(*path[-1], "o", ms=9, color=axes.lines[-1].get_color())
axes.set(
    title="loss and paths", xlabel="log weight of the waves", ylabel="log weight of the spikes"
)
axes.legend()

axes = panels["l"]
for name, (_, losses, evaluations) in runs.items():
    axes.plot(evaluations, losses, ".-", label=name)
axes.set(title="loss of the worst signal", xlabel="evaluations of the loss")

axes = panels["s"]
stalled = Code()
stalled.log_weights.data = runs["L-BFGS"][0][-1]
batch = {"noisy": noisy, "clean": clean}
(gradient,), _ = bl.hypergradient(worst(stalled, batch), [stalled.log_weights])
along = torch.linspace(-0.05, 0.05, 41)
four = errors(stalled.log_weights.detach() - along[:, None] * gradient / gradient.norm())
axes.plot(along, four, color="0.7", lw=1)
axes.plot(along, four.amax(1), color="C0")
axes.plot(0, worst(stalled, batch).detach(), "o", color="C0", ms=9)
axes.set(title="errors where L-BFGS stopped", xlabel="moved against the gradient")
axes.set_ylim(four.amax(1).min() - 0.005, four.max() + 0.001)
plt.show()
