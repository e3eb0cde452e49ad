r"""
Weights of inverse problems, without the truth
==============================================

:doc:`28_no_clean` finds a weight from a noisy image alone. Behind an operator, :math:`y = Ax_0
+ \text{noise}`, the noise tells only of what :math:`A` sees. Stein's estimate then is of

.. math::
   \tfrac1n|A^+A(x(y) - x_0)|^2 \;\text{ by } \text{bl.gsure}, \qquad\text{or of}\qquad
   \tfrac1m|A(x(y) - x_0)|^2 \;\text{ by } \text{bl.sure}\text{ of } A\,x(y),

the first where :math:`A^+` does not blow the noise up (pixels that are hidden), the second, the
*prediction risk*, where it does (a blur).

Y. Eldar. Generalized SURE for exponential families. IEEE Transactions on Signal Processing, 2009.
"""

# %%
# Two photographs, damaged
# ------------------------
#
# One lost 40 % of its pixels, one is blurred; both are noisy. Total variation restores them, and
# its weight is what is asked for.

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch

import bilevel as bl

sigma = 10 / 255
rng = torch.Generator().manual_seed(0)
clean = torch.from_numpy(skimage.data.camera()[90:170, 190:270] / 255.0)[None, None]
bell = torch.exp(-(torch.arange(-3.0, 4.0, dtype=torch.float64) ** 2) / 3)
kernel = bell[:, None] * bell / bell.sum() ** 2
hidden = bl.Mask((torch.rand(80, 80, generator=rng) < 0.6).double())
blurred = bl.Blur(kernel)


def restored(weight, y, A):
    energy = bl.LeastSquares(y) @ A + weight * bl.TotalVariation()
    loose = bl.FixedPoint(bl.BiCGStab(tol=1e-2), order=1)  # a percent of the gradient will do
    return bl.argmin(energy, x0=torch.zeros_like(clean), tol=1e-4, diff=loose)


def seen(weight, y):
    return bl.gsure(lambda y: restored(weight, y, hidden), y, sigma, hidden, generator=probe())


def predicted(weight, y):
    return bl.sure(lambda y: blurred(restored(weight, y, blurred)), y, sigma, generator=probe())


def probe():
    return torch.Generator().manual_seed(1)


# %%
# The weights, by the gradient of the estimates
# ---------------------------------------------


def learned(risk, y):
    log_weight = torch.tensor(np.log(0.05), requires_grad=True)
    optimizer = torch.optim.LBFGS([log_weight], max_iter=5, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = risk(log_weight.exp(), y).mean() / sigma**2
        loss.backward()
        return loss

    optimizer.step(closure)
    return log_weight.exp().item()


# %%
# The best of a grid beside them
# ------------------------------
#
# Here the clean photograph is known, so that the best weight of a grid can be told. Only the gray
# curves and the last column read it.

weights = np.geomspace(0.003, 0.08, 6)
noise = sigma * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)
damaged = {
    "40 % hidden": (hidden(clean + noise), hidden, seen),
    "blurred": (blurred(clean) + noise, blurred, predicted),
}
figure, rows = plt.subplots(2, 4, figsize=(13, 6.5), layout="constrained")
for panels, (name, (y, A, risk)) in zip(rows, damaged.items(), strict=True):
    own = learned(risk, y)
    with torch.no_grad():
        told = [risk(float(w), y).item() for w in weights]
        errors = [(restored(float(w), y, A) - clean).square().mean().item() for w in weights]
        best = float(weights[int(np.argmin(errors))])
        images = {
            name: y,
            f"learned weight, {own:.3f}": restored(own, y, A),
            f"best of the grid, {best:.3f}": restored(best, y, A),
        }
    panels[0].loglog(weights, told, "o-", label="told from y alone")
    panels[0].loglog(weights, errors, "--", color="gray", label="true error, all pixels")
    panels[0].axvline(own, color="C1", label="learned")
    ticks = [0.003, 0.01, 0.03]
    panels[0].set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    panels[0].set_xticks([], minor=True)
    panels[0].set(xlabel="weight", ylabel="mean squared error")
    panels[0].legend(fontsize="small")
    for axes, (title, image) in zip(panels[1:], images.items(), strict=True):
        decibels = -10 * (image - clean).square().mean().log10().item()
        axes.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        axes.set_title(f"{title}, {decibels:.2f} dB")
        axes.axis("off")
        print(f"{name}: {title}, {decibels:.2f} dB")
plt.show()

# %%
# The two kinds of error need not have their least value at the same weight: what the operator does
# not see, the estimate cannot tell. Here they nearly do.
