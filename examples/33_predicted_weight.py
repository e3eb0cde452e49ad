r"""
A network that says how much to smooth
======================================

The best weight of total variation depends on the noise and on the picture, and neither is known. A
small network looks at the noisy image and predicts it. It can be learned from the best weights of
pictures whose clean version is there, or through the solver, from what the prediction is for. The
measurements are stored; ``benchmarks/predicted_weight.py`` makes them.
"""

# %%
# Two ways to learn it
# --------------------
#
# The layer :class:`bilevel.layers.PredictedTVDenoise` solves
#
# .. math::
#    \min_x \; \tfrac12 |x - y|^2 + e^{n(y)} \, \mathrm{TV}(x)
#
# with a network :math:`n`. What it sees are the sizes of differences between neighbours, at four
# scales: their median, their mean, and their mean where the image is quietest; and some eigenvalues
# of the covariance of all patches, the smallest of which even texture leaves to the noise. Of these
# it makes an affine function plus a small network. Regression fits :math:`n(y)` to the logarithm of
# the best weight, and takes all errors of it alike. End to end, the loss is the PSNR of :math:`x`,
# and the gradient comes through the solver: errors count where they cost, and no best weights are
# needed.
#
# The median difference alone, the usual estimate of the noise, takes texture for noise and comes
# far behind; even the true noise level is behind, for it does not know the picture. On images that
# were not learned from, the network is within a tenth of a decibel of the best weight of each.
#
# From the result of the regression, with one noisy version of each photograph, end to end goes on
# with new noise, and gains: clearly on held-out photographs of the same collection, by little more
# than the standard error on those of another. Regression gains as much, or more, from the best
# weights of more noise, which take no more time: it is not the loss that limits either. The gains
# below are means over the images, with their standard errors, first on the other collection.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import bilevel as bl
from bilevel.layers import PredictedTVDenoise
from bilevel.tasks import data

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = here.parent / "benchmarks/results/predicted_weight.json"
rows = json.loads(stored.read_text())["rows"]
for row in rows:
    gains = ", ".join(
        f"{row[kind + 'gain']:.4f} +- {row[kind + 'error']:.4f} dB" for kind in ("", "held out: ")
    )
    print(
        f"{row['weight']:20} {row['behind']:.3f} dB behind the best weights; end to end gains over "
        f"it {gains}"
    )

# %%
# A layer like any other
# ----------------------
#
# One gradient through the solver, in all weights of a network of your own.

photo = torch.from_numpy(data.photographs("skimage", "test")[0].gray()).float()
clean = photo[None, None, 60:124, 200:264]
noisy = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


class Roughness(torch.nn.Module):
    """log weight = a + b log of the mean jump between neighbours."""

    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.line.weight)
        torch.nn.init.constant_(self.line.bias, -0.5)

    def forward(self, noisy):  # (B, 1, H, W) -> (B,)
        jumps = noisy.diff(dim=-1).abs().mean((1, 2, 3))
        return self.line(jumps.log()[:, None])[:, 0]


model = PredictedTVDenoise(Roughness(), diff=bl.FlatZones(), tol=1e-4)
loss = (model(noisy) - clean).square().mean()
loss.backward()
gradients = {name: p.grad.item() for name, p in model.predictor.named_parameters()}
print(f"weight {model.weight_for(noisy).item():.3f}, gradients {gradients}")

# %%
# The picture
# -----------
#
# Left, what was predicted over the best weight of each test image, coloured by the noise. Middle,
# how much each way is behind the best weights. Right, the best weight over the noise: the spread at
# one noise level is what the picture adds.

by_name = {row["weight"]: row for row in rows}
best, sigma = np.array(rows[0]["weights"]), 255 * np.array(rows[0]["sigma"])
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
dots = left.scatter(best, by_name["end to end"]["weights"], c=sigma, s=12)
ends = [best.min(), best.max()]
left.loglog(ends, ends, color="0.7", zorder=0)
left.set(xlabel="best weight of the image", ylabel="predicted", title="end to end")
figure.colorbar(dots, ax=left, label="noise, of 255")
names = [name for name in by_name if name not in ("best of each image", "one for all")]
colors = ["C1", "C0", "C0", "0.6", "0.6"]
middle.barh(names, [by_name[name]["behind"] for name in names], color=colors)
middle.invert_yaxis()
middle.axvline(0.1, color="0.3", ls=":")
middle.set(xlabel="dB behind the best weights", title="less is better")
right.loglog(sigma, best, ".", color="0.4", label="best of each image")
right.loglog(sigma, by_name["end to end"]["weights"], ".", color="C1", label="predicted")
right.set(xlabel="noise, of 255", title="weight over noise")
right.xaxis.set_minor_formatter("")
right.legend()
plt.show()
