r"""
Solutions that are not unique
=============================

A lasso with two equal columns may share a coefficient between them in any way. A solver returns one
of these solutions, by its start and its steps; a derivative of *the* solution does not exist.
Implicit strategies say so, unrolling differentiates the choice that was made.
"""

# %%
# Two columns that are the same
# -----------------------------
#
# Five random columns, and the first one once more:
#
# .. math::
#    x(w) \in \underset{x}{\operatorname{argmin}} \; \tfrac{1}{2} |Ax - b|^2 + w |x|_1,
#    \qquad A = (a_1, \ldots, a_5, a_1).
#
# :math:`x_1 + x_6` is determined, what each of them has of it is not. ``Solution.unique`` knows:
# the energy has no curvature in the direction :math:`(1, 0, 0, 0, 0, -1)`, and a step along it
# leaves the energy as it is.

import matplotlib.pyplot as plt
import torch

import bilevel as bl

torch.set_default_dtype(torch.float64)
rng = torch.Generator().manual_seed(0)
A = torch.randn(8, 5, generator=rng)
A = torch.cat([A, A[:, :1]], 1)
b = 2 * A[:, :1].T + 0.3 * torch.randn(1, 8, generator=rng)


def energy(weight, ridge=0.0):
    return bl.LeastSquares(b) @ bl.Matrix(A) + weight * bl.L1() + ridge * bl.LeastSquares()


print("two equal columns:", bl.solve(energy(2.0), tol=1e-10).unique)
print("with a little ridge:", bl.solve(energy(2.0, 0.1), tol=1e-10).unique)

# %%
# The implicit strategies
# -----------------------
#
# They differentiate what the problem determines, and raise ``NotUnique`` for the rest.

weight = torch.tensor(2.0, requires_grad=True)
for diff in (bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth()):
    x = bl.argmin(energy(weight), diff=diff, tol=1e-10)
    (both,) = torch.autograd.grad(x[0, 0] + x[0, 5], weight, retain_graph=True)
    print(f"{type(diff).__name__}: d(x_1 + x_6)/dw = {both:.6f}")
    try:
        torch.autograd.grad(x[0, 0], weight)
    except bl.NotUnique as error:
        print("  d x_1/dw:", str(error).split(":")[0])

# %%
# Unrolling
# ---------
#
# It gives the derivative of the solution that this start and these steps lead to. Each start has
# another one; their sums agree.

starts = torch.linspace(-2, 3, 6)
rows = []
for start in starts:
    x0 = torch.zeros(1, 6)
    x0[0, 0], x0[0, 5] = start, 1 - start
    x = bl.argmin(energy(weight), x0=x0, diff=bl.Unroll(), tol=1e-12)
    slopes = [torch.autograd.grad(x[0, i], weight, retain_graph=True)[0] for i in (0, 5)]
    rows.append([v.item() for v in (x[0, 0], x[0, 5], *slopes)])
    print("x_1 {:.3f}  x_6 {:.3f}  slopes {:+.4f} {:+.4f}".format(*rows[-1]), end="")
    print(f"  their sum {rows[-1][2] + rows[-1][3]:+.4f}")

# %%
# A strongly convex term chooses
# ------------------------------
#
# With any ridge the solution is unique, and as the ridge goes to 0 it goes to the middle of the
# face: the choice is then made by the problem, and has a derivative.

ridges = torch.logspace(-6, 1, 30)
path = torch.cat([bl.solve(energy(2.0, r), tol=1e-10).x for r in ridges.tolist()])

total = rows[0][0] + rows[0][1]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
left.plot([0, total], [total, 0], color="0.7", lw=6, solid_capstyle="round", label="solutions")
for first, last, slope, other in rows:
    left.plot(first, last, "o", color="C0")
    left.annotate(
        "",
        xy=(first + 6 * slope, last + 6 * other),
        xytext=(first, last),
        arrowprops={"arrowstyle": "->", "color": "C1", "lw": 1.5},
    )
left.plot([], [], "o", color="C0", label="found from six starts")
left.plot([], [], color="C1", label="their derivatives in w, by Unroll, x 6")
left.set(xlabel="$x_1$", ylabel="$x_6$", ylim=(-0.1, 2.9), title="every start has its own")
left.legend(fontsize=8, loc="upper right")
right.semilogx(ridges, path[:, 0], label="$x_1$")
right.semilogx(ridges, path[:, 5], "--", label="$x_6$")
right.axhline(total / 2, color="0.7", lw=1, label="the middle of the face")
right.set(xlabel="ridge", title="a ridge chooses the middle")
right.legend(fontsize=8)
plt.show()

# %%
# The face of a linear program
# ----------------------------
#
# Two of four costs are least: every mixture of them is a solution. In the inside of the face the
# direction along it has no curvature; at its end, a corner of the simplex, the manifold is a point,
# but with a margin of 0, and beside it lies the same direction. If the second cost rises by a
# tenth, the corner is the only solution.


def program(*costs):
    return bl.Quadratic(torch.zeros(4, 4), torch.tensor([costs])) + bl.Simplex()


for name, costs in (("equal", (1.0, 1.0, 2.0, 3.0)), ("apart", (1.0, 1.1, 2.0, 3.0))):
    for x0 in (torch.full((1, 4), 0.25), torch.eye(4)[:1]):
        found = bl.solve(program(*costs), x0=x0, solver=bl.ForwardBackward(step_size=0.5))
        print(f"costs {name}: x = {found.x[0].numpy().round(3)}, unique: {found.unique[0].value}")
