r"""
Which frequencies to measure
============================

A magnetic resonance scanner measures the Fourier transform of an image, line by line, and each line
costs time. Which lines should it measure, if it may measure eight? That depends on how the image is
reconstructed from them. So ask the reconstruction: its derivative in the weight of a line that has
not been measured tells what that line is worth.
"""

# %%
# Images and a scanner
# --------------------
#
# Random heads made of ellipses, some to learn from and others to judge by. The scanner gives all
# frequencies with noise; a weight :math:`m_k` for each line says which are used. A real image has
# the same information at :math:`k` and :math:`-k`, so only half of the lines are worth asking for.

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(3)
n, budget = 48, 8  # lines in all, and lines that may be measured


def uniform(low, high):
    return low + (high - low) * torch.rand((), generator=rng)


def head():
    """A skull, a brain in it, and details that add to the brain."""
    row, column = torch.meshgrid(*[torch.linspace(-1, 1, n)] * 2, indexing="ij")
    image = torch.zeros(n, n)

    def ellipse(height, x, y, a, b, angle):
        c, s = torch.cos(angle), torch.sin(angle)
        u, v = (column - x) * c + (row - y) * s, (row - y) * c - (column - x) * s
        return height * ((u / a) ** 2 + (v / b) ** 2 <= 1)

    tilt, width, height = uniform(-0.3, 0.3), uniform(0.6, 0.75), uniform(0.8, 0.9)
    image += ellipse(1.0, 0, 0, width, height, tilt)
    image -= ellipse(0.7, 0, 0, width - 0.09, height - 0.09, tilt)
    for _ in range(7):
        place = uniform(-0.35, 0.35), uniform(-0.5, 0.5)
        size = uniform(0.06, 0.22), uniform(0.06, 0.25)
        image += ellipse(uniform(-0.25, 0.5), *place, *size, uniform(0, 3))
    return image[None]


learn, judge = (torch.stack([head() for _ in range(count)]) for count in (4, 8))  # (B, 1, n, n)
F = bl.FFT()


def scan(images):
    noise = torch.view_as_complex(torch.randn(*images.shape, 2, generator=rng))
    return F(images) + 0.03 * noise


learn_data, judge_data = scan(learn), scan(judge)

# %%
# The reconstruction
# ------------------
#
# .. math::
#    x(m) = \underset{x}{\operatorname{argmin}} \;
#    \tfrac{1}{2} \sum_k m_k |(Fx)_k - \text{data}_k|^2 + w \sum |Dx|_\delta
#
# with a total variation that is rounded at zero, and a little of :math:`|x|^2` for the frequencies
# that nobody measures. The data are complex, the image is real: ``FFT()`` is made for that.


def reconstruct(data, lines, weight=0.004, tol=1e-4):  # lines (n,): the m_k
    data_term = lines[:, None] * bl.LeastSquares(data) @ F
    smoothing = weight * bl.Huber(0.02) @ bl.Gradient()
    return bl.argmin(data_term + smoothing + 1e-3 * bl.LeastSquares(), tol=tol)


def loss(lines, **options):
    return (reconstruct(learn_data, lines, **options) - learn).square().mean()


# %%
# Is the derivative right? All lines in one backward pass, one of them by two solves:

lines = torch.full((n,), 0.5, requires_grad=True)
(gradient,) = torch.autograd.grad(loss(lines, tol=1e-8), lines)
step = 1e-4 * torch.eye(n)[5]
with torch.no_grad():
    difference = (loss(lines + step, tol=1e-8) - loss(lines - step, tol=1e-8)) / 2e-4
print(f"line 5: {gradient[5]:.6e} by backward, {difference:.6e} by differences")

# %%
# Choosing the lines
# ------------------
#
# One after another. Of those not yet measured, the derivative proposes the three that promise most,
# and a solve with each decides.

learned, losses = torch.zeros(n), []
for _ in range(budget):
    lines = learned.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(lines), lines)
    promise = torch.where((learned == 0) & (torch.arange(n) <= n // 2), -gradient, -torch.inf)
    trials = learned + torch.eye(n)[promise.topk(3).indices]  # each with one line more
    with torch.no_grad():
        values = torch.stack([loss(trial) for trial in trials])
    learned = trials[values.argmin()]
    losses.append(values.min().item())
print("measured:", learned.nonzero()[:, 0].tolist())

# %%
# Judging them
# ------------
#
# Against the two patterns that one would think of: the lowest frequencies, and the six lowest with
# two that are higher. Each pattern has its best weight :math:`w`, found on the images to learn
# from; the errors are on images that were not seen.

place = torch.arange(n)
patterns = {
    "lowest": (place < budget).double(),
    "low and high": ((place < 6) | (place == 9) | (place == 15)).double(),
    "learned": learned,
}
grid, found = torch.logspace(-3.5, -1.5, 7), {}
for name, lines in patterns.items():
    with torch.no_grad():
        weight = min(grid, key=lambda w, lines=lines: float(loss(lines, weight=w)))
        x = reconstruct(judge_data, lines, weight)
    found[name] = x, -10 * (x - judge).square().mean((1, 2, 3)).log10()
    print(f"{name:12} {found[name][1].mean():.1f} dB on unseen images, weight {weight:.4f}")
better = int((found["learned"][1] > found["lowest"][1]).sum())
print(f"the learned lines are better than the lowest on {better} of {len(judge)} unseen images")

# %%
# The picture
# -----------

figure, panels = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
panels[0, 0].imshow(judge[0, 0], cmap="gray", vmin=0, vmax=1.1)
panels[0, 0].set_title("unseen image")
panels[1, 0].semilogy(range(1, budget + 1), losses, ".-")
panels[1, 0].set(title="error while choosing", xlabel="lines")
for column, (name, (x, quality)) in enumerate(found.items(), start=1):
    panels[0, column].imshow(x[0, 0], cmap="gray", vmin=0, vmax=1.1)
    panels[0, column].set_title(f"{name}, {quality[0]:.1f} dB")
    lines = patterns[name]
    seen = torch.maximum(lines, lines.roll(-1).flip(0))  # k tells -k
    panels[1, column].imshow(torch.fft.fftshift(seen)[:, None].expand(n, n), cmap="gray")
    panels[1, column].set_title(f"{int(lines.sum())} lines and their mirrors")
for axes in (*panels[0], *panels[1, 1:]):
    axes.set_axis_off()
plt.show()
