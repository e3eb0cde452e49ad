r"""
Tikhonov and total variation, each at its best
==============================================

A squared gradient has a closed form, one cosine transform, and blurs edges. The length of the
gradient has none, and keeps them. Which is better is a fair question only if each has its best
weight; here both are found by the same bilevel descent.
"""

# %%
# Two denoisers, one weight each
# ------------------------------
#
# .. math::
#    \min_x \tfrac12 |x - y|^2 + \tfrac w2 |\nabla x|^2
#    \qquad\text{and}\qquad
#    \min_x \tfrac12 |x - y|^2 + w \sum_i |(\nabla x)_i|.
#
# The first is linear: with :math:`\lambda` the eigenvalues of :math:`\nabla^* \nabla` in the cosine
# basis, :math:`x = C^{-1} (C y / (1 + w \lambda))`. `argmin` sees that, and takes one Newton step
# by fast transforms.

import matplotlib.pyplot as plt
import numpy as np
import scipy.fft
import torch

import bilevel as bl
from bilevel.tasks import data

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)

photo = torch.from_numpy(data.photographs("skimage", "test")[0].gray())
clean = photo[None, None, 60:188, 160:288]  # (1, 1, 128, 128)
noisy = clean + 0.1 * torch.randn(clean.shape, generator=rng)


def tikhonov(weight):
    return bl.LeastSquares(noisy) + weight * bl.LeastSquares() @ bl.Gradient()


def total_variation(weight):
    return bl.LeastSquares(noisy) + weight * bl.TotalVariation()


solution = bl.solve(tikhonov(2.0))
eigenvalues = [4 * np.sin(np.pi * np.arange(n) / (2 * n)) ** 2 for n in clean.shape[2:]]
spectrum = scipy.fft.dctn(noisy[0, 0].numpy(), norm="ortho")
spectrum /= 1 + 2.0 * np.add.outer(*eigenvalues)
closed_form = scipy.fft.idctn(spectrum, norm="ortho")
difference = np.abs(solution.x[0, 0].numpy() - closed_form).max()
print(f"{solution.certificate.solver}: {difference:.1e} from the closed form")

# %%
# The weights, learned
# --------------------
#
# L-BFGS on the logarithm of the weight; the loss is the PSNR. The derivative of the first is that
# of a formula, the second lives on flat zones: the same lines do both.


def psnr(x):
    return -10 * (x - clean).square().mean().log10()


def learn(energy, start, **options):
    """The weight, and (weight, PSNR, slope in its logarithm) along the way."""
    log_weight, path = torch.tensor(start).log().requires_grad_(), []
    optimizer = torch.optim.LBFGS([log_weight], max_iter=6, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -psnr(bl.argmin(energy(log_weight.exp()), **options))
        loss.backward()
        path.append([log_weight.exp().item(), -loss.item(), -log_weight.grad.item()])
        return loss

    optimizer.step(closure)
    return log_weight.detach().exp(), path


MODELS = {
    "Tikhonov": (tikhonov, 0.2, {}),
    "total variation": (total_variation, 0.02, {"diff": bl.FlatZones(), "tol": 1e-4}),
}
found = {}
for name, (energy, start, options) in MODELS.items():
    weight, path = found[name] = learn(energy, start, **options)
    print(f"{name:15} weight {weight:.3g}, {path[-1][1]:.2f} dB after {len(path)} gradients")

# %%
# The picture
# -----------
#
# Left of the best weight noise is left, right of it detail is lost: Tikhonov blurs edges before the
# noise is gone, total variation keeps edges and loses texture.

factors = {"an eighth": 1 / 8, "the best": 1.0, "eightfold": 8.0}
figure = plt.figure(figsize=(12, 6.4), layout="constrained")
axes = figure.subplots(2, 5)
for row, (name, (energy, _, options)) in zip(axes, MODELS.items(), strict=True):
    weight, path = found[name]
    tol = options.get("tol")
    for panel, (label, factor) in zip(row[1:4], factors.items(), strict=True):
        x = bl.solve(energy(factor * weight), tol=tol).x
        panel.imshow(x[0, 0], cmap="gray", vmin=0, vmax=1)
        panel.set_title(f"{name}, {label}: {psnr(x):.1f} dB", fontsize=9)
    weights = weight * torch.linspace(-3, 3, 13).exp()
    curve = [psnr(bl.solve(energy(w), tol=1e-3).x).item() for w in weights]
    row[4].semilogx(weights, curve, color="0.6")
    for w, value, slope in path:
        around = np.array([-0.3, 0.3])
        row[4].plot(w * np.exp(around), value + slope * around, color="C1")
        row[4].plot(w, value, "o", color="C0", ms=4)
    row[4].set(title="PSNR over the weight", ylim=(min(curve), max(curve) + 0.5))
for panel, image, label in zip(axes[:, 0], (clean, noisy), ("clean", "noisy"), strict=True):
    panel.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    panel.set_title(f"{label}: {psnr(noisy):.1f} dB" if image is noisy else label, fontsize=9)
for panel in axes[:, :4].flat:
    panel.axis("off")
plt.show()
