r"""
Deblurring, up to the edges of the picture
==========================================

A camera that shakes blurs, and what it sees near its frame comes partly from beyond it. Here the
blur is known and undone by total variation, with two ideas of the world beyond the frame: that the
picture repeats itself, and that nothing is known.
"""

# %%
# A blurred photograph
# --------------------
#
# A part of a photograph, through a motion of 9 pixels. The camera sees the real surroundings:
# what the kernel does not cover fully is cut off.

import matplotlib.pyplot as plt
import torch

import bilevel as bl
from bilevel.layers import TVDeblur
from bilevel.tasks import data, kernels

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)

photo = torch.from_numpy(data.photographs("skimage", "test")[0].gray())
kernel = torch.from_numpy(kernels.motion(9, 30))
margin = len(kernel) // 2
scene = photo[None, None, 88:196, 176:284]  # (1, 1, 108, 108)
frame = (..., slice(margin, -margin), slice(margin, -margin))
clean = scene[frame]
blurred = bl.Blur(kernel)(scene)[frame]
blurred = blurred + 0.008 * torch.randn(blurred.shape, generator=rng)

# %%
# Two ideas of the world beyond
# -----------------------------
#
# The usual model is a blur of a picture that wraps around:
#
# .. math::
#    \min_x \; \tfrac{1}{2} |k * x - b|^2 + w \, \mathrm{TV}(x).
#
# The layer :class:`bilevel.layers.TVDeblur` lets :math:`x` reach beyond the frame, as far as the
# kernel does, and compares inside the frame only.

weight = 0.0006
periodic = bl.LeastSquares(blurred) @ bl.Blur(kernel, bl.Periodic()) + weight * bl.TotalVariation()
wrapped = bl.solve(periodic, tol=1e-3).x
with torch.no_grad():
    layer = TVDeblur(weight, tol=2e-3)
    restored = layer(blurred, kernel)


def psnr(x):
    return -10 * (x - clean).square().mean().log10().item()


results = {"blurred": blurred, "wraps around": wrapped, "unknown beyond": restored}
for name, x in results.items():
    print(f"{name:16} {psnr(x):.2f} dB")

# %%
# How much weight?
# ----------------
#
# `bilevel learn deblur` finds the weight by its gradient; for one number a few solves will do.

weights = [0.0003 * 2**k for k in range(6)]
with torch.no_grad():
    curve = [psnr(TVDeblur(w, tol=5e-3)(blurred, kernel)) for w in weights]

# %%
# The picture
# -----------
#
# Below each picture its error. With the wrong world beyond, the error starts at the frame and
# rings far into the picture.

figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
for (name, x), (top, bottom) in zip(results.items(), axes.T, strict=False):
    top.imshow(x[0, 0], cmap="gray", vmin=0, vmax=1)
    top.set_title(f"{name}, {psnr(x):.1f} dB")
    bottom.imshow((x - clean).abs()[0, 0], cmap="magma", vmin=0, vmax=0.25)
axes[0, 3].imshow(clean[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0, 3].set_title("clean")
for panel in axes.flat[:7]:
    panel.axis("off")
axes[1, 3].semilogx(weights, curve, "o-")
axes[1, 3].set(xlabel="weight", title="PSNR over the weight")
plt.show()
