r"""
Measured blurs: the weight learned on five, tried on three
==========================================================

Eight blurs of a camera that shook, measured by Levin and others (2009). The noise is known, so one
weight of total variation should do for all of them. It is learned from the first five; the other
three tell whether it was the right one. The measurements are stored;
``benchmarks/deblur_levin.py`` makes them.
"""

# %%
# What was learned
# ----------------
#
# The layer :class:`bilevel.layers.TVDeblur` knows the kernel, and owns the weight:
#
# .. math::
#    x(w) = \underset{x}{\operatorname{argmin}} \; \tfrac12 |k * x - b|^2 + w \, \mathrm{TV}(x),
#
# compared inside the frame only. L-BFGS maximises the mean PSNR of five photographs, each seen
# through its own kernel: one batch.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
results = here.parent / "benchmarks/results"
rows = json.loads((results / "deblur_levin.json").read_text())["rows"]
stored = np.load(results / "deblur_levin.npz")

path, weights = np.array(rows[0]["path"]), np.array(rows[0]["weights"])
learned = weights[len(weights) // 2]
print(f"weight {learned:.2g} after {len(path)} gradients, {rows[0]['seconds']:.0f} s of processor")
for row in rows:
    print(
        "{kernel}: blurred {blurred:.2f}, learned {learned:.2f}, best {best:.2f} dB".format(**row)
    )
right = sum(row["learned"] == row["best"] for row in rows)
print(
    f"of seven weights, a factor of 4 apart, the learned one is the best of {right} of 8 pictures"
)

# %%
# The picture
# -----------
#
# Above, a curve for each kernel, dashed for those that were not learned from, and the path of the
# learning. Below, the three new blurs: too little weight leaves noise and ringing, too much leaves
# the outlines.

figure = plt.figure(figsize=(11, 9.5), layout="constrained")
top, bottom = figure.subfigures(2, 1, height_ratios=[1, 2.2])
curves, steps = top.subplots(1, 2)
for k, row in enumerate(rows):
    curves.semilogx(weights, row["curve"], "--" if k > 4 else "-", label=row["kernel"])
curves.axvline(learned, color="0.7", zorder=0)
curves.set(xlabel="weight", title="PSNR over the weight")
curves.legend(ncols=2, fontsize=8)
order = np.argsort(path[:, 0])
steps.semilogx(*path[order, :2].T, color="0.8")
for weight, value, slope in path:
    around = np.array([-0.15, 0.15])
    steps.plot(weight * np.exp(around), value + slope * around, color="C1", lw=2)
    steps.plot(weight, value, "o", color="C0")
steps.set(xlabel="weight", title="mean of k1 to k5, with its gradients")

panels = bottom.subplots(3, 5)
titles = ["clean", "blurred", "a sixteenth of the weight", "the learned weight", "sixteenfold"]
for line, pictures, kernel in zip(panels, stored["pictures"], stored["kernels"], strict=True):
    for axes, picture in zip(line, pictures, strict=True):
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
    small = line[1].inset_axes([0.68, 0.68, 0.32, 0.32])
    small.imshow(kernel, cmap="gray")
    small.axis("off")
for axes, title in zip(panels[0], titles, strict=True):
    axes.set_title(title, fontsize=9)
plt.show()
