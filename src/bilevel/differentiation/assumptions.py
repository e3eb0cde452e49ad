"""What the theorems about derivatives assume, as questions to a solved problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..acceleration.base import Acceleration, Plain
from .base import Strategy
from .certificate import Certificate
from .conditions import Conditions
from .contraction import Contraction, Unproven
from .flat_zones import covered
from .implicit import Implicit
from .linearisation import DENSE, Linearisation
from .unrolled import Unroll

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint

Z = tuple[Tensor, ...]


@dataclass(frozen=True)
class Finding:
    """How an assumption came out."""

    assumption: str
    holds: bool | None  # None: unknown
    evidence: str
    instead: str  # what to do where it does not hold

    def __str__(self) -> str:
        word = {True: "yes", False: "NO", None: "unknown"}[self.holds]
        return f"{word:8} {self.assumption}: {self.evidence}"


@dataclass(frozen=True, eq=False)
class Solved:
    """A problem at its solution, with how it shall be differentiated there."""

    fixpoint: Fixpoint
    z: Z
    strategy: Strategy
    acceleration: Acceleration
    tol: float
    certificate: Certificate

    @cached_property
    def M(self) -> Linearisation:
        """That of the equation that the strategy differentiates."""
        problem, point, equation = self.fixpoint.problem, self.z, self.fixpoint.residual
        if isinstance(self.strategy, Implicit):
            point = (self.fixpoint.primal(self.z), *self.fixpoint.dual(self.z))
            equation = Conditions(problem)
        return Linearisation(point, equation)

    @property
    def unknowns(self) -> int:
        return sum(shape[1:].numel() for shape in self.M.shapes)


Assumption = Callable[[Solved], Finding]  # its docstring begins with the assumption itself


def sentence(assumption: Assumption) -> str:
    return (assumption.__doc__ or "").splitlines()[0]


def smooth(at: Solved) -> Finding:
    """all terms are smooth"""
    problem = at.fixpoint.problem
    rough = [problem.g, *(h.outer for h in problem.h)]
    names = ", ".join(type(term).__name__ for term in rough if term is not None)
    return Finding(
        sentence(smooth),
        not names,
        f"{names} not" if names else "by their types",
        "FixedPoint(), which needs a smooth T around the solution only.",
    )


def strongly_convex(at: Solved) -> Finding:
    """the energy is strongly convex"""
    x = at.fixpoint.primal(at.z)
    declared = [torch.as_tensor(t.strong_convexity(x)).min() for t in at.fixpoint.problem.terms]
    mu = float(sum(declared))
    return Finding(
        sentence(strongly_convex),
        True if mu > 0 else None,
        f"mu = {mu:.2g}, as the terms declare" if mu > 0 else "the terms declare none",
        "Add a strongly convex term, such as 1e-3 * LeastSquares().",
    )


def known_curvature(at: Solved) -> Finding:
    """the Hessian has a known Lipschitz constant"""
    f = at.fixpoint.problem.f
    known = f is not None and f.hessian_lipschitz(at.fixpoint.primal(at.z)) is not None
    return Finding(
        sentence(known_curvature),
        known or None,
        "as the terms declare" if known else "a term declares none",
        "LeastSquares, Quadratic and Logistic, also of Kx, declare it; others by "
        "hessian_lipschitz(x).",
    )


def two_dimensional(at: Solved) -> Finding:
    """the energy is LeastSquares + TotalVariation in two dims"""
    return Finding(
        sentence(two_dimensional),
        covered(at.fixpoint.problem, at.fixpoint.primal(at.z)) is not None,
        " + ".join(type(term).__name__ for term in at.fixpoint.problem.terms),
        "FixedPoint() or PartlySmooth(), for every sum of terms.",
    )


def solved(at: Solved) -> Finding:
    """z is the fixed point"""
    residual = float(at.certificate.residual.max())  # type: ignore[union-attr]
    return Finding(
        sentence(solved),
        bool(at.certificate.converged.all()),  # type: ignore[union-attr]
        f"relative residual {residual:.0e}, tol {at.tol:.0e}",
        "Raise max_iter, or take another solver: the derivative is that of no solution.",
    )


def no_kink(at: Solved) -> Finding:
    """T is smooth around z (strict complementarity)

    M* w at z and at z moved by 1e-6 of its size, at random, to both sides.
    """
    generator, step = torch.Generator().manual_seed(0), 1e-6
    # of conditions with unit steps it may be hidden: x - grad f(x) does not move where f'' = 1
    M = at.M if at.fixpoint.problem.g is None else Linearisation(at.z, at.fixpoint.residual)
    z = tuple(part.detach() for part in M.z)
    step = step if z[0].dtype == torch.float64 else 1e-3

    def drawn(part: Tensor) -> Tensor:
        return torch.randn(part.shape, generator=generator, dtype=torch.float64).to(part)

    w = drawn(M.flatten(z))
    noise = [drawn(part) * (part.square().mean().sqrt() or 1.0) for part in z]
    still, worst = M.transposed_product(w), 0.0
    for sign in (1, -1):
        point = tuple(p + sign * step * r for p, r in zip(z, noise, strict=True))
        there = Linearisation(point, M.equation)
        worst = max(worst, float((there.transposed_product(w) - still).norm() / w.norm()))
    return Finding(
        sentence(no_kink),
        worst <= 1e2 * step,
        f"its derivative moves by {worst:.0e} within {step:.0e}, at random",
        "hypergradient(probe=True) tells whether the kink matters for a loss; GradientSampling() "
        "learns past kinks.",
    )


def invertible(at: Solved) -> Finding:
    """M = I - dT/dz is invertible"""
    advice = "A loss of x alone may still have its gradient; probe=True compares two."
    name = sentence(invertible)
    if at.unknowns > DENSE:
        told = f"{at.unknowns} unknowns a sample, more than {DENSE}, are not written out"
        return Finding(name, None, told, advice)
    values = torch.linalg.svdvals(at.M.matrix())
    ratio = float((values[:, -1] / values[:, 0]).min())
    told = f"least over largest singular value {ratio:.1e}"
    return Finding(name, ratio > 1e-10, told, advice)


def contracts(at: Solved) -> Finding:
    """T contracts around z"""
    name, advice = sentence(contracts), "FixedPoint(), which solves the system instead."
    if at.unknowns > DENSE:
        rate = float(at.certificate.contraction.nan_to_num(1.0).max())  # type: ignore[union-attr]
        holds, told = (True if rate < 1 else None), f"by {rate:.3g} in the last step, one direction"
        return Finding(name, holds, told if rate < 1 else "not measurable at the answer", advice)
    matrix = at.M.matrix()
    eye = torch.eye(at.unknowns).to(matrix)
    radius = float(torch.linalg.eigvals(eye - matrix).abs().max())
    return Finding(name, radius < 1 - 1e-9, f"the spectral radius of dT/dz is {radius:.6g}", advice)


def contraction_proven(at: Solved) -> Finding:
    """T contracts by a factor that the terms declare"""
    advice = "A strongly convex term, and smooth composed ones by dualized(): Huber() for L1()."
    try:
        proven = Contraction.of(at.fixpoint.problem, at.fixpoint.solver, at.fixpoint.primal(at.z))
    except Unproven as why:
        return Finding(sentence(contraction_proven), None, str(why), advice)
    told = f"1 - {float(proven.gap.min()):.2g}, in the metric of the two steps"
    return Finding(sentence(contraction_proven), True, told, advice)


def piece_proven(at: Solved) -> Finding:
    """the solution lies on the affine piece of T that z lies on"""
    problem, solver = at.fixpoint.problem, at.fixpoint.solver
    advice = "A smaller tol, as long as the margin is not 0."
    try:
        proven = Contraction.of(problem, solver, at.fixpoint.primal(at.z))
        x, _, *y = at.z
        new, _, *duals = solver.averaged(problem, at.z)
        proven.settled(x, tuple(y), (new, tuple(duals)))
    except Unproven as why:
        return Finding(sentence(piece_proven), None, str(why), advice)
    return Finding(sentence(piece_proven), True, "by the bound of its distance", advice)


def plain(at: Solved) -> Finding:
    """the run is the plain iteration of T"""
    whole = isinstance(at.strategy, Unroll) and at.strategy.last is None
    name = type(at.acceleration).__name__
    return Finding(
        sentence(plain),
        not whole or isinstance(at.acceleration, Plain),
        f"its rule is {name}" if whole else "T is recorded from the solution",
        "acceleration=Plain(): momentum on a non-smooth T may converge while its derivatives do "
        "not. Or FixedPoint().",
    )
