r"""
Learned without clean images
============================

A weight is usually learned from pairs: a noisy image, and the clean one that should come out. Often
there is no clean one. For Gaussian noise of a known level Stein's estimate (SURE) tells the error
to it all the same, from the noisy image :math:`y`, the answer :math:`x(y)` and its divergence:

.. math::
   \operatorname{SURE}(y) = \tfrac1n|x(y) - y|^2 - \sigma^2
   + \tfrac{2\sigma^2}{n}\operatorname{div} x(y), \qquad
   \mathbb E\,\operatorname{SURE}(y) = \mathbb E\,\tfrac1n|x(y) - \text{clean}|^2.

C. Stein. Estimation of the mean of a multivariate normal distribution. Ann. Statist., 1981.
"""

# %%
# One noisy photograph, and the error of every weight
# ---------------------------------------------------
#
# ``bl.sure`` finds the divergence by one more solution, of :math:`y` moved in a random direction.
# Here the clean photograph is known, so that its true error can stand beside the estimate; to learn
# it is not used.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import skimage.data
import torch

import bilevel as bl

sigma = 25 / 255
rng = torch.Generator().manual_seed(0)
clean = torch.from_numpy(skimage.data.camera()[90:170, 190:270] / 255.0)[None, None]
noisy = clean + sigma * torch.randn(clean.shape, generator=rng, dtype=clean.dtype)


def denoised(weight, y):
    energy = bl.LeastSquares(y) + weight * bl.TotalVariation()
    return bl.argmin(energy, tol=1e-5, diff=bl.FlatZones())


def risk(weight):
    probe = torch.Generator().manual_seed(1)
    return bl.sure(lambda y: denoised(weight, y), noisy, sigma, generator=probe).mean()


weights = np.geomspace(0.02, 0.3, 7)
with torch.no_grad():
    told = [risk(float(w)).item() for w in weights]
    true = [(denoised(float(w), noisy) - clean).square().mean().item() for w in weights]

# %%
# The weight, by the gradient of the estimate
# -------------------------------------------
#
# The estimate is differentiated as any loss: through both solutions.

log_weight = torch.tensor(np.log(0.05), requires_grad=True)
optimizer = torch.optim.LBFGS([log_weight], max_iter=6, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = risk(log_weight.exp()) / sigma**2  # the share of the noise that is left
    loss.backward()
    return loss


optimizer.step(closure)
learned = log_weight.exp().item()
best = weights[int(np.argmin(true))]
print(f"learned from the noisy image alone: {learned:.4f}; best of the grid: {best:.4f}")

# %%
# The picture
# -----------

with torch.no_grad():
    answer = denoised(learned, noisy)
decibels = [-10 * (image - clean).square().mean().log10().item() for image in (noisy, answer)]
figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
panels[0].semilogx(weights, told, "o-", label="SURE, from the noisy image")
panels[0].semilogx(weights, true, "k--", label="true error")
panels[0].axvline(learned, color="C1", label=f"learned, {learned:.3f}")
ticks = [0.02, 0.05, 0.1, 0.2]
panels[0].set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
panels[0].set_xticks([], minor=True)
panels[0].set(xlabel="weight of total variation", ylabel="mean squared error")
panels[0].legend()
names = ("noisy", "denoised")
for axes, image, name, value in zip(panels[1:], (noisy, answer), names, decibels, strict=True):
    axes.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(f"{name}, {value:.2f} dB")
    axes.axis("off")
plt.show()

# %%
# What clean images are worth
# ---------------------------
#
# ``bilevel learn denoise --no-clean --noise 25`` does this for a folder. The same crops, learned
# from with their clean ones and without (``benchmarks/no_clean.py``), judged on images that neither
# has seen:

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
for row in json.loads((root / "benchmarks/results/no_clean.json").read_text())["rows"]:
    print(
        f"noise {row['noise']}: {row['PSNR, with clean']} dB with clean images, "
        f"{row['PSNR, without']} dB without"
    )
