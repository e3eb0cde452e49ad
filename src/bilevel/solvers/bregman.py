"""Primal-dual splitting with Bregman distances, whose steps are smooth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from .._broadcast import Scalar, axpy, expand
from ..acceleration import Acceleration, Plain
from ..operators.matrix import Matrix
from ..problem import Problem, relative_change
from ..terms.base import Composed, Proximable, Smooth
from .base import Solver, Z, names, refuse
from .geometry import Burg, Geometry, SimplexEntropy, dual_geometry, primal_geometry
from .mirror import SEEN, check_geometry, entropy_slope, is_entropy, move, size_of
from .primal_dual import PrimalDual
from .steps import below, lipschitz, positive

_MARGIN = 0.95  # of the limit: strictly below


@dataclass(frozen=True, eq=False)
class BregmanPrimalDual(Solver):
    """min f(x) + g(x) + sum h_i(K_i x), with entropies for the sets that x and the y_i lie in:

    y_i' = argmin_v -<sigma K_i x, v> + h_i*(v) + D_i(v, y_i)
    x'   = argmin_u <tau (grad f(x) + sum K_i* (2 y_i' - y_i)), u> + g(u) + D(u, x)

    Smooth where g is NonNegative(), Simplex() or Box() (exp, softmax, tanh; an Entropy() after it
    is taken in) and h* the indicator of a box, h = L1(), or of a simplex, h = Largest(); other
    terms keep their Euclidean prox. z holds x and y_i, in the logarithms in which the boundary is
    at infinity. So matrix games, Largest() @ Matrix(A) + Simplex(), are played by softmax alone.

    Converges for tau (L + sigma |K|^2) < 1, the steps in units of the distances' strong convexity.
    It slows down as strategies of a game come near to a tie, about like one over what tells them
    apart, for that is what drives their logarithms apart: PrimalDual() ends such a run in float64.

    [1] Chambolle, Pock. On the ergodic convergence rates of a first-order primal-dual algorithm.
        Math. Programming, 2016.
    [2] Ochs, Ranftl, Brox, Pock. Techniques for gradient-based bilevel optimization with nonsmooth
        lower level problems. JMIV, 2016.
    """

    geometry: Geometry | None = None  # for NonNegative(): PositiveEntropy(curvature)
    step_size: Scalar | None = None  # tau
    dual_step_size: Scalar | None = None  # sigma
    size: Scalar | None = None  # of x; prepared

    batched = ("step_size", "dual_step_size", "size")

    def check(self, problem: Problem) -> None:
        if isinstance(self.geometry, Burg):
            raise TypeError("BregmanPrimalDual has no step size with Burg(). Use MirrorDescent().")
        check_geometry(self, self.geometry, problem)
        for h in problem.h:
            if not isinstance(h.outer, Proximable):
                what = "the prox of every composed term"
                raise refuse(self, what, names(h.outer), "Use a term with a prox.")
        duals = [dual_geometry(h.outer) for h in self._coupled(problem)]
        if primal_geometry(problem.g) is None and not any(duals):
            raise refuse(
                self,
                "a set with an entropy: NonNegative(), Simplex(), Box(), or L1() or Largest() "
                "behind an operator",
                names(problem.terms),
                "Use PrimalDual().",
            )

    @staticmethod
    def _coupled(problem: Problem) -> tuple[Composed, ...]:
        """The composed terms that have a dual variable in z."""
        if primal_geometry(problem.g) is None:
            return problem.h
        return tuple(h for h in problem.h if not is_entropy(h))

    def _split(self, problem: Problem) -> tuple[Smooth | None, Proximable | None, Geometry | None]:
        """(the term handled by its gradient, by its Euclidean prox, the geometry of g)."""
        geometry = primal_geometry(problem.g)
        if geometry is None:
            return *PrimalDual.split(problem), None
        assert self.size is not None, "not prepared"
        return problem.f, None, (self.geometry or geometry).sized(self.size)

    def prepare(self, problem: Problem, x0: Tensor) -> BregmanPrimalDual:
        prepared = self if self.size is not None else replace(self, size=size_of(x0))
        smooth, proximal, _ = prepared._split(problem)
        L = 0.0 if smooth is None else lipschitz(smooth, x0)
        norms = [_norm(h, prepared._split(problem)[2], x0) ** 2 for h in self._coupled(problem)]
        square = torch.as_tensor(sum(norms)).to(x0)
        square = torch.where(square > 0, square, 1.0)
        sigma, tau = self.dual_step_size, self.step_size
        if sigma is not None:
            sigma = positive("dual_step_size", sigma, x0)
        elif tau is not None:
            tau = positive("step_size", tau, x0)
            below("step_size", tau, 1 / torch.as_tensor(L).to(x0), "1 / L")
            sigma = _MARGIN * (1 / tau - L) / square
        else:
            mu = 0.0 if proximal is None else proximal.strong_convexity(x0)
            rate = L + 10 * torch.as_tensor(mu).to(x0)
            sigma = torch.where(rate > 0, rate / square, square**-0.5)
        limit = 1 / (L + sigma * square)
        tau = _MARGIN * limit if tau is None else positive("step_size", tau, x0)
        below("step_size", tau, limit, "1 / (L + dual_step_size |K|^2)")
        return replace(prepared, step_size=tau, dual_step_size=sigma)

    def euclidean(self) -> PrimalDual:
        return PrimalDual()

    def start(self, problem: Problem, x0: Tensor) -> Z:
        geometry = self._split(problem)[2]
        x = x0 if geometry is None else geometry.coordinate(geometry.interior(x0))
        zeros = (h.rest(x0) for h in self._coupled(problem))
        return (x, *zeros)  # y = 0 in the middle of a box, uniform in a simplex

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return _point(self._split(problem)[2], z[0])

    def _duals(self, problem: Problem, rs: Z) -> list[Tensor]:
        pairs = zip(self._coupled(problem), rs, strict=True)
        return [_point(dual_geometry(h.outer), r) for h, r in pairs]

    def dual(self, problem: Problem, z: Z) -> Z:
        ys, x = iter(self._duals(problem, z[1:])), self.primal(problem, z)
        coupled = {id(h) for h in self._coupled(problem)}
        return tuple(
            next(ys) if id(h) in coupled else entropy_slope(h.outer.weight, x)  # type: ignore[attr-defined]
            for h in problem.h
        )

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        coupled = {id(h) for h in self._coupled(problem)}
        pairs = [(h, y_i) for h, y_i in zip(problem.h, y, strict=True) if id(h) in coupled]
        values = (x, *(y_i for _, y_i in pairs))
        z = (_coordinate(s, v) for s, v in zip(self._geometries(problem), values, strict=True))
        return self.landed(problem, tuple(z), SEEN)

    def _geometries(self, problem: Problem) -> list[Geometry | None]:
        """Of the parts of z; None for a Euclidean one."""
        return [self._split(problem)[2], *(dual_geometry(h.outer) for h in self._coupled(problem))]

    def landed(self, problem: Problem, z: Z, tol: float) -> Z:
        triples = zip(self._geometries(problem), z, self.step(problem, z), strict=True)
        return tuple(a if s is None else s.landed(a, b, tol) for s, a, b in triples)

    def step(self, problem: Problem, z: Z) -> Z:
        q, *rs = z
        smooth, proximal, geometry = self._split(problem)
        tau = self.step_size
        assert tau is not None
        x, coupled = _point(geometry, q), self._coupled(problem)
        new = tuple(self._ascend(h, r, x) for h, r in zip(coupled, rs, strict=True))
        ahead = [
            2 * a - b
            for a, b in zip(self._duals(problem, new), self._duals(problem, tuple(rs)), strict=True)
        ]
        parts = [h.operator.adjoint(y) for h, y in zip(coupled, ahead, strict=True)]
        if smooth is not None:
            parts.append(smooth.grad(x))
        slope = reduce(Tensor.add, parts) if parts else torch.zeros_like(x)
        if geometry is not None:
            return (move(geometry, problem, q, slope, tau), *new)
        forward = axpy(-tau, slope, x)
        return (forward if proximal is None else proximal.prox(forward, tau), *new)

    def _ascend(self, h: Composed, r: Tensor, x: Tensor) -> Tensor:
        sigma, image, geometry = self.dual_step_size, h.operator(x), dual_geometry(h.outer)
        assert sigma is not None
        length = expand(sigma, image)
        if geometry is None:
            return h.outer.prox_conjugate(r + length * image, sigma)
        return geometry.move(r, -length * geometry.strength(r) * image)

    def residual(self, problem: Problem, z: Z, t: Z, floor: Scalar = 0.0) -> Tensor:
        changes = [
            relative_change((a,), (b,), floor) if geometry is None else geometry.moved(a, b)
            for geometry, a, b in zip(self._geometries(problem), z, t, strict=True)
        ]
        return reduce(torch.maximum, changes)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()


def _point(geometry: Geometry | None, q: Tensor) -> Tensor:
    return q if geometry is None else geometry.point(q)


def _coordinate(geometry: Geometry | None, x: Tensor) -> Tensor:
    return x if geometry is None else geometry.coordinate(x)


def _norm(h: Composed, geometry: Geometry | None, x: Tensor) -> Scalar:
    """|K| between the norms in which the distances are strongly convex: from l1 to its dual, the
    largest entry, where both players of a matrix game mix."""
    simplices = (geometry, dual_geometry(h.outer))
    flat = x.ndim == 2 and all(isinstance(s, SimplexEntropy) for s in simplices)
    if flat and isinstance(h.operator, Matrix):
        entries = h.operator.matrix.detach().abs()
        return entries.flatten(1).amax(1) if entries.ndim == 3 else entries.amax()
    return h.operator.norm(x)
