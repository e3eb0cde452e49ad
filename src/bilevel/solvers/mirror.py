"""Mirror descent: proximal gradient with a Bregman distance, whose steps are smooth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like, sum_event, tiny
from ..acceleration import Acceleration, Plain
from ..operators.base import Identity
from ..problem import Problem
from ..terms.base import Composed, Term
from ..terms.logarithms import Entropy, KullbackLeibler
from ..terms.sets import NonNegative
from .base import Solver, Z, names, refuse
from .geometry import Burg, Geometry, PositiveEntropy, primal_geometry
from .steps import LEAST, below, lipschitz, positive

SEEN = 1e-8  # a distance from the boundary, relative, that a solution read off x may have


def is_entropy(h: Composed) -> bool:
    """Whether a composed term is Entropy() of x itself, which a Bregman step takes in."""
    return isinstance(h.outer, Entropy) and isinstance(h.operator, Identity)


def entropy_weight(problem: Problem) -> Scalar | None:
    """Of the Entropy() beside the constraint; None where there is none."""
    weights = [h.outer.weight for h in problem.h if is_entropy(h)]  # type: ignore[attr-defined]
    return sum(weights) if weights else None


def entropy_slope(weight: Scalar, x: Tensor) -> Tensor:
    """The dual variable of weight Entropy()."""
    return weight * (x.clamp_min(tiny(x)).log() + 1)


def move(geometry: Geometry, problem: Problem, q: Tensor, slope: Tensor, step: Scalar) -> Tensor:
    """The Bregman step of length `step` in units of the geometry's strength."""
    length, weight = expand(step, q) * geometry.strength(q), entropy_weight(problem)
    return geometry.move(q, length * slope, None if weight is None else length * weight)


@dataclass(frozen=True, eq=False)
class MirrorDescent(Solver):
    """min f(x) over a constraint set, f smooth: T(x) = argmin_u <tau grad f(x), u> + D(u, x).

    D is the Bregman distance of the set's entropy: x exp(-tau grad f) for NonNegative(), softmax
    for Simplex(), tanh for a Box(); an Entropy() after the constraint is taken in. T is smooth and
    its iterates stay inside the set, although the solution may lie on the boundary. z holds the
    logarithms in which the boundary is at infinity.

    Converges for tau L < 1 where f is L-smooth relative to phi [1]; tau is in units of phi's strong
    convexity, so that L is the gradient's Lipschitz constant. Burg() takes KullbackLeibler(c) @ K
    with K >= 0 in f's place, L = weight sum c.

    [1] Bauschke, Bolte, Teboulle. A descent lemma beyond Lipschitz gradient continuity. Math. of
        Operations Research, 2017.
    [2] Ochs, Ranftl, Brox, Pock. Techniques for gradient-based bilevel optimization with nonsmooth
        lower level problems. JMIV, 2016.
    """

    geometry: Geometry | None = None  # for NonNegative(): PositiveEntropy(), the default, or Burg()
    step_size: Scalar | None = None  # default 0.95 / L
    size: Scalar | None = None  # of x; prepared

    batched = ("step_size", "size")

    def check(self, problem: Problem) -> None:
        check_geometry(self, self.geometry, problem)
        if primal_geometry(problem.g) is None:
            raise refuse(
                self,
                "a constraint NonNegative(), Simplex() or Box() with finite bounds",
                names(problem.terms),
                "Use ForwardBackward() or PrimalDual().",
            )
        if self._poisson:
            data = [h for h in problem.h if isinstance(h.outer, KullbackLeibler)]
            if problem.f is not None or not data or len(data) < len(problem.h):
                what = "KullbackLeibler data alone with Burg()"
                raise refuse(self, what, names(problem.terms), "Leave the geometry out.")
        elif problem.f is None:
            raise refuse(self, "a smooth term f", names(problem.terms), "Use BregmanPrimalDual().")
        elif not all(is_entropy(h) for h in problem.h):
            raise refuse(
                self,
                "f + constraint + Entropy() without composed terms",
                names(problem.h),
                "Use BregmanPrimalDual(), which handles h(Kx).",
            )

    @property
    def _poisson(self) -> bool:
        return isinstance(self.geometry, Burg)

    def prepare(self, problem: Problem, x0: Tensor) -> MirrorDescent:
        prepared = replace(self, size=size_of(x0))
        geometry = prepared._geometry(problem)
        x = geometry.point(geometry.coordinate(geometry.interior(x0)))
        L = self._smoothness(problem, x)
        if self.size is None and not self._poisson:
            steepest = problem.f.grad(x0).abs().flatten(1).amax(1) / L  # type: ignore[union-attr]
            prepared = replace(self, size=torch.where(steepest > 0, steepest, size_of(x0)))
        if self.step_size is None:
            if isinstance(self.geometry, PositiveEntropy) and self.geometry.plain:
                raise ValueError(
                    "step_size has no default with PositiveEntropy(curvature=0): no f is known to "
                    "be smooth relative to it. Give one, or leave the curvature out."
                )
            return replace(prepared, step_size=0.95 / L)
        step = positive("step_size", self.step_size, x0)
        if self._poisson or problem.f.lipschitz_known:  # type: ignore[union-attr]
            below("step_size", step, 1 / L, "1 / L, L the relative smoothness,", least=LEAST)
        return replace(prepared, step_size=step)

    def _smoothness(self, problem: Problem, x: Tensor) -> Scalar:
        """L, of f relative to phi in units of its strong convexity."""
        if not self._poisson:
            return lipschitz(problem.f, x)  # type: ignore[arg-type]
        parts = []
        for h in problem.h:
            data: KullbackLeibler = h.outer  # type: ignore[assignment]
            image = h.operator(x)
            total = like(data.weight, image).detach() * like(data.counts, image).detach()
            parts.append(sum_event(total.expand_as(image)))
        return reduce(Tensor.add, parts).clamp_min(tiny(x) ** 0.5)

    def _geometry(self, problem: Problem) -> Geometry:
        geometry = self.geometry or primal_geometry(problem.g)
        assert geometry is not None and self.size is not None, "not prepared"
        return geometry.sized(self.size)

    def start(self, problem: Problem, x0: Tensor) -> Z:
        geometry = self._geometry(problem)
        return (geometry.coordinate(geometry.interior(x0)),)

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return self._geometry(problem).point(z[0])

    def dual(self, problem: Problem, z: Z) -> Z:
        x = self.primal(problem, z)
        return tuple(
            h.outer.slope(h.operator(x))
            if isinstance(h.outer, KullbackLeibler)
            else entropy_slope(h.outer.weight, x)  # type: ignore[attr-defined]
            for h in problem.h
        )

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        return self.landed(problem, (self._geometry(problem).coordinate(x),), SEEN)

    def step(self, problem: Problem, z: Z) -> Z:
        (q,), geometry = z, self._geometry(problem)
        assert self.step_size is not None
        x = geometry.point(q)
        if self._poisson:
            slope = problem.slope(x, self.dual(problem, z))
        else:
            slope = problem.f.grad(x)  # type: ignore[union-attr]
        return (move(geometry, problem, q, slope, self.step_size),)

    def residual(self, problem: Problem, z: Z, t: Z, floor: Scalar = 0.0) -> Tensor:
        return self._geometry(problem).moved(z[0], t[0])

    def landed(self, problem: Problem, z: Z, tol: float) -> Z:
        (q,), (t,) = z, self.step(problem, z)
        return (self._geometry(problem).landed(q, t, tol),)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()


def size_of(x0: Tensor) -> Tensor:  # -> (B,)
    """The largest entry, 1 where all are 0."""
    largest = x0.abs().flatten(1).amax(1) if x0[0:1].numel() else x0.new_ones(len(x0))
    return torch.where(largest > 0, largest, 1.0)


def check_geometry(solver: Solver, geometry: object, problem: Problem) -> None:
    """Refuse a geometry that does not belong to the problem's constraint."""
    if geometry is None:
        return
    if not isinstance(geometry, PositiveEntropy | Burg):
        got = getattr(geometry, "__name__", repr(geometry))
        raise TypeError(
            f"geometry must be PositiveEntropy() or Burg(), got {got}. Leave it out to have it "
            "chosen by the constraint."
        )
    if not isinstance(problem.g, NonNegative):
        first: Term | None = problem.g
        raise refuse(
            solver,
            f"NonNegative() as the first constraint with {type(geometry).__name__}()",
            names(first),
            "Leave the geometry out to have it chosen by the constraint.",
        )
