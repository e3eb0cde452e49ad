r"""
What unrolling gives, step by step
==================================

The derivative of the k-th iterate is not that of the solution. How far is it, how long, and what
does it cost to keep the steps? Measured on non-negative least squares and on total variation, with
squared distances and with Bregman distances, whose steps are smooth.
"""

# %%
# The numbers are measured by ``benchmarks/unrolled_gradients.py``: the gradient of a random linear
# loss in the data, after k plain steps, against that of ``FixedPoint`` at the solution.

import json
from pathlib import Path

import matplotlib.pyplot as plt

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = json.loads((here.parent / "benchmarks/results/unrolled_gradients.json").read_text())

# %%
# Bias, norm and memory
# ---------------------
#
# A short run gives a gradient that is too short: what lies further back than the steps is missing.
# It may be too long, too, on the way, as the Bregman iterates of total variation show after 30
# steps. The bias falls geometrically once the active set is found. The memory grows with the
# steps, and that of ``FixedPoint`` (dotted) is one step's.

figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
for color, (name, case) in enumerate(stored["cases"].items()):
    rows = case["rows"]
    steps = [row["steps"] for row in rows]
    style = {"color": f"C{color}", "marker": "o", "ms": 4}
    panels[0].loglog(steps, [row["bias"] for row in rows], label=name, **style)
    panels[1].semilogx(steps, [row["norm"] for row in rows], **style)
    panels[2].loglog(steps, [row["bytes"] / 1024 for row in rows], **style)
    panels[2].axhline(case["fixed point"]["bytes"] / 1024, color=f"C{color}", ls=":")
panels[0].set(title="bias", ylabel="relative error")
panels[1].set(title="norm", ylabel="of the exact gradient's")
panels[1].axhline(1, color="0.8", zorder=0)
panels[2].set(title="memory", ylabel="kB kept for backward")
for axes in panels:
    axes.set_xlabel("steps")
figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %%
# The Bregman methods need more steps here than the Euclidean ones: a coordinate reaches its bound
# at the rate of its multiplier, where a projection puts it there at once. What they buy is that
# every iterate may be differentiated, and that the derivatives of a short run have no jumps in
# the parameters. For the derivative of the solution, ``FixedPoint`` takes either.
