r"""
A first tour: learn how much to denoise
=======================================

A noisy photograph, an energy written as the maths is written, and one number in it that nobody
knows: the weight of the regularisation. We solve, differentiate the solution in the weight, and
learn it.
"""

# %%
# The energy
# ----------
#
# Total-variation denoising [#rof]_ looks for an image that is near the noisy one and has few edges,
#
# .. math::
#    x(w) = \underset{x}{\operatorname{argmin}} \;
#    \tfrac{1}{2} |x - \text{noisy}|^2 + w\, \mathrm{TV}(x).
#
# Images are tensors of shape (B, C, H, W): dim 0 is always the batch.

import math

import matplotlib.pyplot as plt
import skimage.data
import torch

import bilevel as bl

torch.manual_seed(0)
photograph = torch.from_numpy(skimage.data.camera()[80:176, 170:266] / 255.0)
clean = photograph[None, None]  # (1, 1, 96, 96)
noisy = clean + 0.1 * torch.randn_like(clean)


def energy(weight):
    return bl.LeastSquares(noisy) + weight * bl.TotalVariation()


def denoise(weight):
    return bl.argmin(energy(weight), tol=1e-5, diff=bl.FixedPoint(bl.BiCGStab(tol=1e-3)))


def error(x):
    return (x - clean).square().mean()


# %%
# The tolerances are those of the job: learning a weight needs three digits of the gradient, which
# take a moment. The defaults of ``argmin`` ask for eight, which take minutes on a photograph
# (:doc:`/how_to_choose`).
#
# ``x`` is an ordinary tensor with a gradient, in everything the energy was built from:

weight = torch.tensor(0.03, dtype=torch.float64, requires_grad=True)
loss = error(denoise(weight))
loss.backward()
print(f"loss {loss.item():.6f}, derivative in the weight {weight.grad.item():.4f}")

# %%
# No iteration was recorded for that. At the solution the equation :math:`z = T(z)` of the solver is
# differentiated, and one linear system gives the gradient. Compare with a difference of two solves:

losses = [error(bl.solve(energy(w), tol=1e-8).x).item() for w in (0.0299, 0.0301)]
print(f"difference quotient       {(losses[1] - losses[0]) / 2e-4:.4f}")

# %%
# Learning
# --------
#
# Any torch optimizer takes it from here. A weight must stay positive, so we learn its logarithm;
# the loss is the logarithm of the error, the PSNR up to its sign.
# (:func:`bilevel.learn` does this for whole data sets, with checkpoints and warm starts.)

log_weight = torch.tensor(0.015, dtype=torch.float64).log().requires_grad_()
optimizer = torch.optim.LBFGS([log_weight], max_iter=6, line_search_fn="strong_wolfe")
path = []


def closure():
    optimizer.zero_grad()
    loss = error(denoise(log_weight.exp())).log()
    loss.backward()
    path.append((log_weight.exp().item(), loss.item(), log_weight.grad.item()))
    return loss


optimizer.step(closure)
learned = log_weight.exp().item()
print(f"learned weight {learned:.4f} after {len(path)} solves")

# %%
# The picture
# -----------
#
# Before, after, and the loss over the weight. The arrows are the gradients: each starts at a weight
# that the optimizer tried, and points along the tangent, downhill. They lie on the curve, which was
# computed without any derivative.

weights = torch.logspace(-2.1, -0.4, 21, dtype=torch.float64)
curve = [error(bl.solve(energy(w), tol=1e-4).x).item() for w in weights]
x = bl.solve(energy(learned), tol=1e-5).x


def psnr(image):
    return -10 * error(image).log10().item()


widths = [1, 1, 1, 1.35]
figure, panels = plt.subplots(1, 4, figsize=(12, 3.1), width_ratios=widths, layout="constrained")
titles = ("photograph", f"noisy: {psnr(noisy):.1f} dB", f"learned: {psnr(x):.1f} dB")
for axes, title, image in zip(panels, titles, (clean, noisy, x), strict=False):
    axes.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.axis("off")

axes = panels[3]
axes.loglog(weights, curve, color="0.6", label="loss")
arrow = {"arrowstyle": "->", "color": "tab:red"}
for w, value, slope in path:
    step = -0.3 if slope > 0 else 0.3  # in log weight, downhill
    end = (w * math.exp(step), math.exp(value + slope * step))
    axes.annotate("", end, (w, math.exp(value)), arrowprops=arrow)
    axes.plot(w, math.exp(value), "o", color="tab:red", ms=3)
axes.plot(learned, error(x).item(), "*", color="tab:blue", ms=14, label=f"learned: {learned:.3f}")
axes.set(xlabel="weight of the total variation", ylabel="mean squared error")
axes.legend()
plt.show()

# %%
# From here: :doc:`the derivative of total variation as a picture <02_total_variation_derivative>`,
# :doc:`how to choose a solver and a strategy </how_to_choose>`, and
# :doc:`learning from many photographs </learning>`.
#
# .. [#rof] Rudin, Osher, Fatemi. Nonlinear total variation based noise removal algorithms.
#    Physica D, 1992.
