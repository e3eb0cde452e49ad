r"""
A sparse code with a weight for each feature
============================================

A lasso explains a signal by few columns of a dictionary. One weight for all columns treats them
alike; here every column has its own, 128 in all, learned from examples by their gradient. First the
gradient is checked, then it is used.
"""

# %%
# Signals and a dictionary
# ------------------------
#
# Signals are a few slow waves and a few spikes, with noise. The dictionary has cosines of all
# frequencies and one spike for each sample; the code is
#
# .. math::
#    x(w) = \underset{x}{\operatorname{argmin}} \;
#    \tfrac{1}{2} |Ax - \text{noisy}|^2 + \sum_j w_j |x_j|.

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)
n, count = 64, 40

time = (torch.arange(n) + 0.5) * torch.pi / n
cosines = (2 / n) ** 0.5 * torch.cos(time[:, None] * torch.arange(n))
cosines[:, 0] /= 2**0.5
dictionary = torch.cat([cosines, torch.eye(n)], 1)  # (64, 128)
A = bl.Matrix(dictionary)

# which features occur: waves below frequency 12, spikes in the second half
place = torch.arange(n)
chance = torch.cat([0.3 * (place < 12), 0.1 * (place >= n // 2)])
occurs = torch.rand(count, 2 * n, generator=rng) < chance
codes = occurs * 2 * torch.randn(count, 2 * n, generator=rng)
clean = A(codes)  # (40, 64)
noisy = clean + 0.3 * torch.randn(count, n, generator=rng)


def code(noisy, weights):
    return bl.argmin(bl.LeastSquares(noisy) @ A + weights * bl.L1(), tol=1e-9)


# %%
# Is the gradient right?
# ----------------------
#
# One signal, its reconstruction error, and the gradient in all weights: one backward pass. Central
# differences need two solves for each weight; they are one batch of 256 problems, each with its own
# weights.

weights = torch.full((2 * n,), 0.3, requires_grad=True)
error = (A(code(noisy[:1], weights)) - clean[:1]).square().sum()
(gradient,), certificate = bl.hypergradient(error, [weights])

h = 1e-6
start = weights.detach()
perturbed = torch.cat([start + h * torch.eye(2 * n), start - h * torch.eye(2 * n)])  # (256, 128)
copies = noisy[:1].expand(len(perturbed), n)
solutions = bl.solve(bl.LeastSquares(copies) @ A + perturbed * bl.L1(), tol=1e-13).x
errors = (A(solutions) - clean[:1]).square().sum(1)
differences = (errors[: 2 * n] - errors[2 * n :]) / (2 * h)

difference = ((gradient - differences).norm() / differences.norm()).item()
print(f"gradient and central differences differ by {difference:.1e}")
print(f"{int((gradient != 0).sum())} of {len(gradient)} entries are not 0: the active features")
print(certificate)

# %%
# Learning the weights
# --------------------
#
# Half of the signals to learn from, the other half to judge. L-BFGS on the logarithms, from the
# best single weight of a grid.

learn, judge = slice(0, count // 2), slice(count // 2, count)


def loss(weights, part):
    return (A(code(noisy[part], weights)) - clean[part]).square().mean()


with torch.no_grad():
    grid = torch.logspace(-1.5, 0.3, 13)
    single = grid[torch.stack([loss(w, learn) for w in grid]).argmin()]

log_weights = torch.full((2 * n,), float(single.log())).requires_grad_()
optimizer = torch.optim.LBFGS([log_weights], lr=1.0, max_iter=15, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    value = loss(log_weights.exp(), learn).log()
    value.backward()
    return value


optimizer.step(closure)
learned = log_weights.exp().detach()
with torch.no_grad():
    for name, w in (("one weight", single), ("learned weights", learned)):
        print(f"{name:16} error: learned from {loss(w, learn):.4f}, unseen {loss(w, judge):.4f}")

# %%
# The picture
# -----------

figure = plt.figure(figsize=(11, 6), layout="constrained")
panels = figure.subplot_mosaic("gw;ss")

axes = panels["g"]
axes.plot(differences, gradient.detach(), "o", ms=4)
ends = torch.stack([differences.min(), differences.max()])
axes.plot(ends, ends, color="0.7", zorder=0)
axes.set(title="gradient in 128 weights", xlabel="central differences", ylabel="one backward pass")

axes = panels["w"]
axes.semilogy(learned[:n], ".-", label="of the cosines")
axes.semilogy(learned[n:], ".-", label="of the spikes")
axes.axhline(float(single), color="0.7", label="the best single weight")
axes.set(title="learned weights", xlabel="frequency, position")
axes.legend()

axes = panels["s"]
with torch.no_grad():
    example = judge.start + int((clean[judge] ** 2).sum(1).argmax())
    row = noisy[example : example + 1]
    axes.plot(row[0], ".", color="0.6", label="noisy, unseen")
    axes.plot(clean[example], color="0.4", lw=1, label="clean")
    for name, w in (("one weight", single), ("learned weights", learned)):
        axes.plot(A(code(row, w))[0], label=name)
axes.legend(ncols=4)
plt.show()
