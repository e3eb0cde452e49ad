r"""
Gradients against search
========================

How many parameters can be learned? Grids, random search and Gaussian processes ask for losses
alone, and know ever less the more parameters there are. A gradient knows all of them, for the price
of one adjoint. The measurements are stored; ``benchmarks/search_baselines.py`` makes them.
"""

# %%
# A map of weights
# ----------------
#
# A photograph with noise that grows to the right is denoised by total variation, with a weight for
# each block of pixels: one block, ten, two hundred, or every pixel its own. What is lowered is the
# mean squared error to the clean image: this compares optimizers, not denoisers. Work is steps of
# the lower solver and products of the adjoint one, which does not depend on the machine.

import json
from pathlib import Path

import matplotlib.pyplot as plt

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = json.loads((here.parent / "benchmarks/results/search_baselines.json").read_text())
rows = stored["rows"]
for row in rows:
    print(f"{row['parameters']:7} {row['method']:25} PSNR {row['PSNR']:.2f}, work {row['work']}")

# %%
# The picture
# -----------
#
# The best loss so far, over the work so far.

numbers = sorted({row["parameters"] for row in rows})
styles = {"bilevel gradient": "C1", "grid": "0.6", "random": "C2", "Gaussian process": "C0"}

figure, panels = plt.subplots(1, len(numbers), figsize=(13, 4), layout="constrained")
for axes, n in zip(panels, numbers, strict=True):
    for row in (row for row in rows if row["parameters"] == n):
        method = row["method"].split(",")[0]  # beyond one parameter, the grid is of one for all
        axes.loglog(*zip(*row["curve"], strict=True), ".-", color=styles[method], label=method)
    axes.set(title=f"{n} parameter" + "s" * (n > 1), xlabel="steps and products")
panels[0].set_ylabel("best loss so far")
panels[1].legend()
plt.show()

# %%
# The grid of more than one parameter is that of one weight for all, the best that thirty points can
# do. There is no Gaussian process for 202 500 inputs.
