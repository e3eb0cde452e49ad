r"""
Gradients graded
================

``bilevel.testing.solution_maps`` has small problems whose solutions are known in closed form, with
their exact Jacobians, and some that sit on a kink. Any library that differentiates solutions can be
graded by them: this one is, with each of its strategies, and others beside it.
"""

# %%
# A map, and how to grade by it
# -----------------------------
#
# Each map draws its parameters away from kinks, and tells its energy as a plain function and as one
# of this library:

import json
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import bilevel as bl
from bilevel.testing import solution_maps

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)

map = solution_maps.total_variation
theta = map.draw(seed=0)
g = torch.randn(map.solution(theta).shape)
leaves = {name: part.clone().requires_grad_() for name, part in theta.items()}
x = bl.argmin(map.energy(leaves))
found = torch.autograd.grad((g * x[0]).sum(), list(leaves.values()))
found = dict(zip(leaves, found, strict=True))
print(f"{map.name}: {map.formula}")
print(f"error of the gradient {solution_maps.error(found, map.gradients(theta, g)):.0e}")

# %%
# At a kink there is one Jacobian a side. What this library returns lies between them, and the probe
# says that it is there:

for kink in solution_maps.KINKS:
    g = torch.randn(kink.map.solution(kink.theta).shape)
    leaves = {name: part.clone().requires_grad_() for name, part in kink.theta.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.KinkWarning)
        x = bl.argmin(kink.map.energy(leaves), tol=1e-12)
        found, told = bl.hypergradient((g * x[0]).sum(), list(leaves.values()), probe=True)
    found = dict(zip(leaves, found, strict=True))
    off = solution_maps.error(found, kink.map.gradients(kink.theta, g))
    print(f"{kink.name:32} {off:.0e} from the sides, influence {told.influence:.2f}")

# %%
# Error against cost
# ------------------
#
# Stored by ``benchmarks/gradients/grade.py``: the worst error of three draws against the seconds of
# the processor for forward and backward, one curve a library, one point for each accuracy that was
# asked of its solver. The problems have four or five unknowns, so that the seconds are overhead
# above all: compiled jaxopt is the quickest by far. What the curves show is which errors can be had
# at all. sparho is graded by the gradient in the weight, which is the one that it gives; its 1e-10
# is a ridge that it adds to the adjoint system.

here = Path(__file__).parent if "__file__" in globals() else Path.cwd()
stored = here.parent / "benchmarks" / "results" / "gradients.json"
rows = [row for row in json.loads(stored.read_text())["rows"] if "error" in row]
names = list(dict.fromkeys(row["map"] for row in rows))
libraries = list(dict.fromkeys(row["library"] for row in rows))

figure, panels = plt.subplots(3, 4, figsize=(13, 9), layout="constrained", sharex=True, sharey=True)
for axes, name in zip(panels.flat, names, strict=False):
    for i, library in enumerate(libraries):
        points = [r for r in rows if r["map"] == name and r["library"] == library]
        if points:
            seconds = [1e3 * r["seconds"] for r in points]
            errors = [max(r["error"], 1e-17) for r in points]
            style = "o-" if library.startswith("bilevel") else "s--"
            axes.loglog(seconds, errors, style, ms=4, lw=1, color=f"C{i}", label=library)
    axes.set(title=name, ylim=(1e-17, 10))
for axes in panels[-1]:
    axes.set_xlabel("ms")
for axes in panels[:, 0]:
    axes.set_ylabel("error of the gradient")
handles = {
    label: h for a in panels.flat for h, label in zip(*a.get_legend_handles_labels(), strict=True)
}
figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5)
plt.show()
