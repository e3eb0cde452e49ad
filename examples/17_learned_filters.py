r"""
Filters instead of differences
==============================

Total variation measures an image by its differences. Why these? A bank of filters
:math:`K_1, \ldots, K_{48}`, each 7 x 7, can be *learned* for the job:

.. math::
   x(\theta) = \arg\min_x \tfrac12 |x - y|^2 + w \sum_k s_k \sum_p \rho_k((K_k x)_p),
   \qquad \min_\theta \sum_i |x_i(\theta) - c_i|^2,

and :math:`\theta` the filters, their shares :math:`s_k` and what shapes the :math:`\rho_k`: about
2400 numbers, all by the derivative of the solution (Chen, Ranftl, Pock 2014).
`bilevel learn denoise --model filters` does it; banks for noise of 15, 25 and 50 come with the
package, and `bilevel denoise` takes the nearest when no other model is named. To a level between
them it comes by scaling: :math:`c\,x(y / c)` is the same model with :math:`w` and the widths of the
:math:`\rho_k` times :math:`c`.
"""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import skimage.data
import torch

import bilevel as bl
from bilevel.reports.filters import atlas
from bilevel.tasks.shipped import denoisers

# %%
# A photograph that it never saw
# ------------------------------

rng = torch.Generator().manual_seed(0)
clean = torch.tensor(skimage.data.camera()[80:240, 150:310] / 255, dtype=torch.float32)[None, None]
noisy = clean + 25 / 255 * torch.randn(clean.shape, generator=rng)
model = denoisers()[25.0]
with torch.no_grad():
    pictures = {
        "clean": clean,
        "noisy": noisy,
        "total variation": bl.solve(bl.LeastSquares(noisy) + 0.0725 * bl.TotalVariation()).x,
        "learned filters": model(noisy),
    }
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for axis, (name, picture) in zip(axes, pictures.items(), strict=True):
    psnr = -10 * (picture - clean).square().mean().log10()
    axis.imshow(picture[0, 0], cmap="gray", vmin=0, vmax=1)
    axis.set_title(name if name == "clean" else f"{name}, {psnr:.2f} dB")
    axis.axis("off")

# %%
# What was learned
# ----------------
#
# The filters began as the basis of the discrete cosine transform but for its constant (right), and
# became edges and lines at several angles and scales (left, the strongest first).

figure, axes = plt.subplots(1, 2, figsize=(12, 3.4), layout="constrained")
banks = {
    "learned": model.strongest_first(),
    "where learning began: the DCT": model.basis,
}
for axis, (name, bank) in zip(axes, banks.items(), strict=True):
    axis.imshow(atlas(bank), cmap="gray")
    axis.set_title(name)
    axis.axis("off")

# %%
# How good
# --------
#
# On photographs of BSD68, measured by `benchmarks/filters_bsd68.py`: PSNR in dB, mean
# over images and seeds of the noise, also of the filters for 25 scaled to the other levels.

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = json.loads((here.parent / "benchmarks/results/filters_bsd68.json").read_text())
print("noise   images   seeds   filters   those of 25, scaled   total variation")
for row in stored["rows"]:
    columns = ("sigma", "images", "seeds", "filters", "those of 25, scaled", "TV")
    numbers = (row[name] for name in columns)
    print("{:5.0f}   {:6}   {:5}   {:7.2f}   {:19.2f}   {:15.2f}".format(*numbers))

# %%
# The penalties of these filters are not convex, the energy is. With convex ones, an l1 norm with
# rounded tips, learned from the DCT in so many seconds of one core, on photographs of BSD68 at
# noise 25 (``benchmarks/filters_convex.py``; the published convex ones have 28.04 and 28.10 on
# all of them). More time brings nothing, a more accurate solution a little:

convex = json.loads((here.parent / "benchmarks/results/filters_convex.json").read_text())
for row in convex["rows"]:
    print(f"{row['images']} images   {row['PSNR']:.3f} dB   {row['learned in s']:.0f} s   "
          f"solved to {row['solved to']:g}")  # fmt: skip
