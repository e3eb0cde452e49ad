"""Differentiate on the manifold that the solution stays on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch

from .._tangents import constant
from ..errors import KinkWarning, user_level
from .active import Active
from .base import Strategy
from .flat_zones import covered, on_zones
from .implicit import at_fixed_point, at_optimality, check_order
from .vertex import by_vertices

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run
    from ..problem import Problem
    from .base import Z


@dataclass(frozen=True)
class PartlySmooth(Strategy):
    """dx/dθ = -(H_M)^+ P_T ∂θ(grad f + grad_M J): implicit differentiation on the active manifold
    M, J the sum of the non-smooth terms, H_M the energy's second derivative along M, its curvature
    included.

    M is read off the solution and its duals (`Proximable.manifold`), and the system has its
    dimension: 4 unknowns for a lasso of 1000 features of which 4 are active, an LU factor at the
    vertex of a linear program, L1 @ Matrix with x in a Box. Else dense where at most
    512 coordinates of x can move; beyond, by conjugate gradients along M without composed terms;
    with local ones (total variation, filters; whatever the data's operator is) by conjugate
    residuals along M, preconditioned by one sparse factor, for images of up to 65 536 numbers. Else
    as `FixedPoint`, but for `FlatZones` where that covers the problem: first derivatives of
    images denoised by total variation. The numbers are those of `Implicit`, right up to derivative
    `order`. At a kink, where the margin of M is 0, a KinkWarning is given, and the derivative is
    that along one of the manifolds that meet there; none where the duals are not unique, whose
    margin may be 0 without a kink: `hypergradient(probe=True)` tells there.
    [1] Lewis. Active sets, nonsmoothness, and sensitivity. SIOPT, 2002.
    [2] Vaiter, Deledalle, Peyre, Fadili, Dossal. The degrees of freedom of partly smooth
        regularizers. Ann. Inst. Stat. Math., 2017.
    """

    order: int = 2

    def __post_init__(self) -> None:
        check_order(self.order)

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        problem = fixpoint.problem
        with constant():
            z = run(fixpoint, z0)
            point = (fixpoint.primal(z), *fixpoint.dual(z))
            active = Active(problem, point, tol=run.adjoint_tol)
            reduced = active.reduced
        run.certificate.margin = active.margin
        _warn(active, run)
        if reduced:
            direct = partial(partial, _direct, active)
            return at_optimality(run, fixpoint, point, self.order, direct=direct)
        energy = covered(problem, active.x)
        if energy is not None:
            return on_zones(run, fixpoint, energy, point)
        return at_fixed_point(run, fixpoint, z, self.order)


def _direct(active: Active, problem: Problem, point: Z) -> Callable[[Z, bool], Z]:
    """The solves at a point: those already prepared at the solution, or new ones beside it."""
    same = all(torch.equal(a, b) for a, b in zip((active.x, *active.y), point, strict=True))
    return by_vertices(active if same else Active(problem, point, tol=active.tol))


def _warn(active: Active, run: Run) -> None:
    """Of kinks that the accuracy of the solution cannot tell from a margin of 0."""
    assert run.certificate.residual is not None
    seen = (active.x, *active.y)
    if active.own is not None:  # read off x and the dual of g, as large as it may be beside x
        seen = (*seen, active.problem.slope(active.x, active.y))
    size = torch.stack([part.abs().flatten(1).amax(1) for part in seen]).amax(0)
    doubtful = active.margin <= run.certificate.residual * size
    if bool(doubtful.any()):  # where duals are many, that of the solver may be one of the outermost
        index = doubtful.nonzero()[:, 0]
        part = active.take(index)
        unique = active.dual_unique[index] if part is None else part.dual_unique
        doubtful = doubtful.index_put((index,), unique)
    if bool(doubtful.any()):
        warnings.warn(
            f"{int(doubtful.sum())} of {len(doubtful)} solutions lie at a kink, as far as their "
            "accuracy can tell: their active set is about to change, and only directional "
            "derivatives exist. What is returned is the derivative along one of the manifolds that "
            "meet there. (Where slopes are much larger or smaller than x, rescale the problem or "
            "use FixedPoint(), which reads its active set at the solver's step.)",
            KinkWarning,
            stacklevel=user_level(),
        )
