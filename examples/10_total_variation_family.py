r"""
The family of total variation
=============================

Total variation is one term; around it stands a family of energies, one for each kind of damage to
an image. Each is written as its formula, and each is a layer with a gradient.
"""

# %%
# A photograph
# ------------
#
# A crop of 80 x 80 pixels, in colour and in gray.

import time

import matplotlib.pyplot as plt
import skimage.data
import torch

import bilevel as bl

rng = torch.Generator().manual_seed(0)
photo = torch.tensor(skimage.data.astronaut()[90:170, 180:260] / 255).movedim(-1, 0)[None]
gray = photo.mean(1, keepdim=True)  # (B, 1, H, W)
n = gray[0].numel()


def noise(image, level):
    return level * torch.randn(image.shape, generator=rng, dtype=image.dtype)


def uniform(image):
    return torch.rand(image.shape, generator=rng, dtype=image.dtype)


noisy = gray + noise(gray, 0.08)
chance = uniform(gray)
salted = torch.where(chance < 0.1, 0.0, torch.where(chance > 0.9, 1.0, gray))
seen = (uniform(gray) < 0.4).to(gray)
blur = bl.Blur(torch.ones(5, 5, dtype=gray.dtype) / 25)
blurred = blur(gray) + noise(gray, 0.01)
noisy_colour = photo + noise(photo, 0.12)

# %%
# The energies
# ------------
#
# .. math::
#    \begin{aligned}
#    \text{ROF}\quad & \tfrac12 |x - y|^2 + w\,\mathrm{TV}(x) \\
#    \text{TV-L1}\quad & |x - y|_1 + w\,\mathrm{TV}(x) \\
#    \text{Huber-TV}\quad & \tfrac12 |x - y|^2 + w \sum_i h_\delta(|(Dx)_i|) \\
#    \text{constrained}\quad & \mathrm{TV}(x) \text{ subject to } |x - y|_2 \le \sigma \sqrt n \\
#    \text{TGV}\quad & \tfrac12 |u - y|^2 + w \min_v \sum_i |(Du - v)_i| + 2 |(Ev)_i| \\
#    \text{holes}\quad & \tfrac{1}{2} |m (x - y)|^2 + w\,\mathrm{TV}(x) \\
#    \text{blur}\quad & \tfrac12 |k * x - y|^2 + w\,\mathrm{TV}(x)
#    \end{aligned}
#
# Huber's function of the length of a pixel's gradient makes small slopes smooth: it is the envelope
# of the norm that total variation sums. TGV has the field :math:`v` as a second and third channel
# of the unknown. Colour couples the channels, so that edges come at the same places.

tv = bl.TotalVariation()
u, v = bl.Part(0, of=3), bl.Part(slice(1, 3), of=3)
huber = bl.MoreauEnvelope(bl.L21(dim=-3), 0.05) @ bl.Gradient()
norm = bl.L21(dim=1)
generalised = norm @ (bl.Gradient() @ u - v) + 2 * norm @ bl.SymmetrizedGradient() @ v

rows = {
    "ROF, noise": (noisy, bl.LeastSquares(noisy) + 0.07 * tv),
    "TV-L1, salt and pepper": (salted, bl.Absolute(salted) + 0.65 * tv),
    "Huber-TV, noise": (noisy, bl.LeastSquares(noisy) + 0.08 * huber),
    "constrained, noise": (noisy, tv + bl.L2Ball(0.08 * n**0.5, noisy)),
    "TGV, noise": (noisy, bl.LeastSquares(noisy[:, 0]) @ u + 0.07 * generalised),
    "six holes in ten": (seen * gray, seen * bl.LeastSquares(seen * gray) + 0.005 * tv),
    "blur": (blurred, bl.LeastSquares(blurred) @ blur + 0.0007 * tv),
    "colour, each channel": (noisy_colour, bl.LeastSquares(noisy_colour) + 0.1 * tv),
    "colour, coupled": (
        noisy_colour,
        bl.LeastSquares(noisy_colour) + 0.14 * bl.TotalVariation(coupled=True),
    ),
}

# %%
# The pictures
# ------------


def psnr(image, truth):
    return -10 * (image - truth).square().mean().log10().item()


figure, panels = plt.subplots(len(rows), 3, figsize=(7, 2.3 * len(rows)), layout="constrained")
for line, (name, (given, energy)) in zip(panels, rows.items(), strict=True):
    start = time.perf_counter()
    solution = bl.solve(energy, tol=1e-3)
    seconds = time.perf_counter() - start
    truth = photo if given.shape[1] == 3 else gray
    x = solution.x if given.shape[1] == 3 else solution.x[:, :1]  # of TGV the image, not the field
    told = f"{psnr(given, truth):.1f} dB", f"{psnr(x, truth):.1f} dB"
    print(f"{name:24} {told[0]} -> {told[1]}, {int(solution.iterations)} steps, {seconds:.1f} s")
    titles = f"{name}: {told[0]}", f"solution, {told[1]}", "2 (solution - truth)"
    images = given, x, 0.5 + 2 * (x - truth)
    for axes, image, title in zip(line, images, titles, strict=True):
        pixels = image[0].movedim(0, -1).clamp(0, 1)
        axes.imshow(pixels.squeeze(-1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
plt.show()

# %%
# The weights are chosen by eye. They need not be: the solution of each has a gradient in them, in
# :math:`\delta`, :math:`\sigma` and the kernel. The constrained form has no weight at all, but the
# level of the noise, which one may know. TV-L1 leaves what is not an outlier as it was; coupled
# channels keep gray what is gray.
