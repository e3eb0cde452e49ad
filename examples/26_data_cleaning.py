r"""
Data cleaning by stochastic bilevel methods
===========================================

Most labels of the training data are wrong; 300 samples are known to be right. Give every training
sample a weight, fit a model with these weights, and learn the weights so that the model does well
on the 300. ``bl.learn_stochastic`` moves model, adjoint and weights together, a batch a step.

.. math::
   \min_\theta\; \frac1m\sum_j \ell_j(x) \quad\text{with}\quad
   x = \operatorname*{argmin}_x\; \frac1n\sum_i \sigma(\theta_i)\,\ell_i(x)
   + \frac{0.01}2|x|^2 + \lambda|x|_1
"""

# %%
# Digits with the label of the next digit
# ---------------------------------------
#
# 60 % of the 1000 training images of digit :math:`c` are called :math:`c+1`.

import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import bilevel as bl

TRAIN, VALIDATE = 1000, 300
bunch, generator = load_digits(), torch.Generator().manual_seed(0)
order = torch.randperm(len(bunch.target), generator=generator)
images = torch.from_numpy(bunch.data / 16).float()[order]
given = torch.from_numpy(bunch.target).long()[order]
wrong = torch.randperm(TRAIN, generator=generator) < 600
given[:TRAIN] = (given[:TRAIN] + wrong.long()) % 10
samples = [{"image": i, "target": t} for i, t in zip(images, given, strict=True)]
train, validate = samples[:TRAIN], samples[TRAIN : TRAIN + VALIDATE]

# %%
# The two levels
# --------------
#
# The lower one is an energy of a batch, here with an L1 norm: SABA takes its prox, and moves the
# adjoint on the pixels in use. The upper one is a loss of a batch.


class Weights(nn.Module):
    def __init__(self):
        super().__init__()
        self.theta = nn.Parameter(torch.zeros(TRAIN))

    def energy(self, batch):
        def fit(x):
            losses = nn.functional.cross_entropy(
                batch["image"] @ x[0], batch["target"], reduction="none"
            )
            return (self.theta[batch["index"]].sigmoid() * losses).mean()[None]

        ridge = bl.LeastSquares(torch.zeros(()), weight=0.01)
        return bl.Potential(fit) + ridge + 0.002 * bl.L1()

    def loss(self, x, batch):
        return nn.functional.cross_entropy(batch["image"] @ x[0], batch["target"])


def auc(score):  # how often a wrong label has more than a right one
    return float((score[wrong][:, None] > score[~wrong]).float().mean())


model, curve = Weights(), []
result = bl.learn_stochastic(
    model,
    train,
    validate,
    Weights.energy,
    Weights.loss,
    torch.zeros(1, 64, 10),
    method=bl.SABA(0.1, 1000.0),  # as the benchmark below chooses
    steps=2000,
    batch_size=50,
    on_step=lambda k, x: k % 50 or curve.append((k, auc(-model.theta.detach()))),
)
weights = model.theta.detach().sigmoid()
print(f"AUC {auc(-weights):.3f}, {(result.x == 0).float().mean():.0%} of the model is 0")

# %%
# Compared
# --------
#
# ``benchmarks/data_cleaning.py`` runs all three methods, and takes the step sizes with the least
# loss on 100 of the 300 samples, from which it does not learn. The samples' own losses under equal
# weights are the simple detector: good where wrong labels are scattered, misled where they are the
# majority.

root = next(p for p in (Path.cwd(), *Path.cwd().parents) if (p / "benchmarks/results").is_dir())
for row in json.loads((root / "benchmarks/results/data_cleaning.json").read_text())["rows"]:
    found = f"AUC {row['AUC']:.3f}" if "AUC" in row else " " * 9
    print(f"{row['wrong']:20} {row['what']:46} {found}  right on {row['test accuracy']:.1%}")

# %%
# The picture
# -----------

figure = plt.figure(figsize=(13, 4), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(3, 2))
axes = left.subplots(1, 2)
axes[0].plot(*zip(*curve, strict=True), color="C0")
axes[0].axhline(0.95, color="0.7", ls="--")
axes[0].set(title="AUC of the wrong labels", xlabel="steps")
bins = torch.linspace(0, 1, 31).tolist()
axes[1].hist(weights[~wrong], bins, color="C0", alpha=0.7, label="label right")
axes[1].hist(weights[wrong], bins, color="C1", alpha=0.7, label="label wrong")
axes[1].set(title="learned weights", xlabel="weight of a sample", ylabel="samples")
axes[1].legend()
lowest = weights.argsort()
chosen = torch.cat([lowest[:8], lowest[-8:]])
for ax, i in zip(right.subplots(4, 4).flat, chosen, strict=True):
    ax.imshow(images[i].reshape(8, 8), cmap="gray_r")
    ax.set_title(f'"{given[i]}"', fontsize=9, color="C1" if wrong[i] else "C0")
    ax.axis("off")
right.suptitle("least weight (above), most (below); the label given")

# %%
# How many passes over the data?
# ------------------------------
#
# ``benchmarks/stochastic_bilevel.py`` takes the problems of benchopt's benchmark: quadratics
# with random Hessians, and a logistic regression with a weight :math:`e^{\theta_j}` for every
# feature, on the squares of the coefficients or, which needs a prox, on their sizes. Shown is the
# gradient of the upper level at exact solutions.

curves = json.loads((root / "benchmarks/results/stochastic_bilevel.json").read_text())["rows"]
names = list(dict.fromkeys(row["problem"] for row in curves))
figure, axes = plt.subplots(1, len(names), figsize=(13, 4), layout="constrained")
for ax, name in zip(axes, names, strict=True):
    for row in curves:
        if row["problem"] == name:
            passes, _, slopes = zip(*row["curve"], strict=True)
            ax.loglog(passes, slopes, ".-", label=row["method"])
            print(
                f"{name:10} {row['method']:22} |gradient| {slopes[-1]:.1e} after {passes[-1]:.0f}"
            )
    ax.set(title=name, xlabel="passes over the lower data")
axes[0].set_ylabel("size of the upper gradient")
axes[0].legend()
plt.show()
