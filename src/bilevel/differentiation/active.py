"""The optimality conditions on the active manifold: a small saddle point system.

For f(x) + g(x) + sum h_i(K_i x) at a solution x with duals y_i, every non-smooth term has its
manifold there, with tangent projection P_i and second derivative H_i (terms/manifolds.py), N_i = 1
- P_i; g counts as h_0 with K_0 = 1. The conditions say that

    A p + sum K_i* mu_i = c,    N_i K_i p = d_i,    A = f'' + sum K_i* H_i K_i,    mu_i normal.

p lies in a subspace, and A on it is what a Newton step would factor.
"""

from __future__ import annotations

from functools import cached_property, reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from .._tangents import constant
from ..terms.base import Proximable
from ..terms.manifolds import Manifold
from ..terms.of_prox import LARGEST
from .noise import noise
from .sparse_tangent import Factored
from .tangent import Projected, Spanned, inverse, normal

if TYPE_CHECKING:
    from ..operators.base import Operator
    from ..problem import Problem

Z = tuple[Tensor, ...]


def declared(problem: Problem) -> bool:
    """Whether all manifolds of a problem come in closed form."""
    outers = [] if problem.g is None else [problem.g]
    return all(map(_declares, outers + [h.outer for h in problem.h]))


def manifolds_known(problem: Problem, x: Tensor) -> bool:
    """Whether all manifolds are found at any size, in closed form or of separable terms; of real
    numbers."""
    seen = [] if problem.g is None else [(problem.g, x)]
    seen += [(h.outer, h.operator(x)) for h in problem.h]
    known = (_declares(outer) or outer.admissible(u) is u for outer, u in seen)
    return all(known) and all(u.is_floating_point() for _, u in seen)


def _declares(outer: Proximable) -> bool:
    return type(outer).manifold is not Proximable.manifold


class Active:
    """The manifolds of a problem's terms at (x, y_1, ...), and the linear system on them.

    nudge: by how much, relatively and in a random direction, the duals are moved before the
    manifolds are read off, so that a condition without slack falls to one side. tol: of systems
    that are solved by products.
    """

    def __init__(self, problem: Problem, point: Z, nudge: float = 0.0, tol: float = 1e-10) -> None:
        x, *y = (part.detach() for part in point)
        self.problem, self.x, self.y, self.tol = problem, x, tuple(y), tol
        with constant():
            self.own: Manifold | None = None
            if problem.g is not None:
                dual = -problem.slope(x, self.y)
                self.own = problem.g.manifold(x, _nudged(dual, nudge))
            self.composed: list[tuple[Operator, Manifold]] = [
                (h.operator, h.outer.manifold(h.operator(x), _nudged(y_i, nudge)))
                for h, y_i in zip(problem.h, y, strict=True)
            ]
        self._slope: tuple[Tensor, Tensor] | None = None

    def take(self, index: Tensor) -> Active | None:
        """Of the samples `index`; None if a term cannot be indexed."""
        problem = self.problem.take(index, self.x)
        point = tuple(part[index] for part in (self.x, *self.y))
        return None if problem is None else Active(problem, point, tol=self.tol)

    @property
    def manifolds(self) -> list[Manifold]:
        own = [] if self.own is None else [self.own]
        return own + [manifold for _, manifold in self.composed]

    @property
    def margin(self) -> Tensor:  # (B,); nan where a term does not know its own
        margins = [manifold.margin for manifold in self.manifolds]
        return reduce(torch.minimum, margins, self.x.new_full((len(self.x),), torch.inf))

    @property
    def signature(self) -> Tensor:  # (B, k)
        parts = [manifold.signature.long() for manifold in self.manifolds]
        return torch.cat([torch.zeros_like(self.x.flatten(1)[:, :0]).long(), *parts], 1)

    @property
    def sides(self) -> tuple[Active, Active]:
        """The manifolds beside these: a condition without slack holds on the one, not on the
        other."""
        nudge, point = eps(self.x) ** 0.5, (self.x, *self.y)
        return Active(self.problem, point, nudge), Active(self.problem, point, -nudge)

    @property
    def dual_unique(self) -> Tensor:  # (B,) bool; False where it is not known
        """Whether the duals of the composed terms are the only ones."""
        unique = torch.ones_like(self.margin, dtype=torch.bool)
        if not self.composed:
            return unique
        for active in (self, *self.sides):
            tangent = active.tangent
            unique = unique & (tangent.determines if isinstance(tangent, Spanned) else False)
        return unique

    @property
    def small(self) -> bool:
        """Whether few enough coordinates can move for dense algebra."""
        size = self.x.shape[1:].numel() if self.own is None else _most(self.own.support)
        return size <= LARGEST

    @cached_property
    def tangent(self) -> Spanned | Projected | Factored | None:
        """The common tangent space; None where it is neither small nor that of g alone."""
        with constant():
            if self.small:
                return Spanned(self)
            return Factored.of(self) if self.composed else Projected(self)

    @property
    def reduced(self) -> bool:
        """Whether the tangent space leaves a system to be solved; it is not written out here."""
        return self.small or self.tangent is not None

    # ------------------------------------------------------------------------------- products

    def hessian(self, p: Tensor) -> Tensor:
        """A p, for a p along the manifolds."""
        parts = [self.smooth(p)]
        if self.own is not None:
            parts.append(self.own.hessian(p))
        parts += [
            k.adjoint(manifold.hessian(manifold.project(k(p)))) for k, manifold in self.composed
        ]
        return reduce(Tensor.add, parts)

    def smooth(self, p: Tensor) -> Tensor:
        """f'' p."""
        if self.problem.f is None:
            return torch.zeros_like(p)
        if self._slope is None:
            with constant(), torch.enable_grad():
                at = self.x.clone().requires_grad_()
                self._slope = (self.problem.f.grad(at), at)
        slope, at = self._slope
        if not slope.requires_grad:
            return torch.zeros_like(p)
        (product,) = torch.autograd.grad(slope, at, p, retain_graph=True, allow_unused=True)
        return torch.zeros_like(p) if product is None else product

    def images(self, p: Tensor) -> Z:
        """K_i p for the composed terms."""
        return tuple(k(p) for k, _ in self.composed)

    def constraints(self, p: Tensor) -> Z:
        """N_i K_i p."""
        pairs = zip(self.composed, self.images(p), strict=True)
        return tuple(normal(manifold, image) for (_, manifold), image in pairs)

    def adjoint(self, parts: Z) -> Tensor:
        """sum K_i* y_i over the composed terms."""
        pulled = [k.adjoint(part) for (k, _), part in zip(self.composed, parts, strict=True)]
        return reduce(Tensor.add, pulled, torch.zeros_like(self.x))

    # ---------------------------------------------------------------------------------- solves

    def solve(self, b: Z, transposed: bool) -> Z:
        """M^-1 b or M*^-1 b for M the derivative of `Problem.kkt`: D prox = (1 + H)^-1 P, put into
        it, leaves the saddle point system."""
        if isinstance(self.tangent, Factored):
            return self.tangent.solve(b, transposed)
        a, *bs = b
        ms = [manifold for _, manifold in self.composed]
        lifted = tuple(inverse(m, b_i) for m, b_i in zip(ms, bs, strict=True))  # (1 + H) P b
        if not transposed:
            c = (a if self.own is None else inverse(self.own, a)) - self.adjoint(lifted)
            d = tuple(-normal(m, b_i) for m, b_i in zip(ms, bs, strict=True))
            p, _, mu = self._saddle(c, None if self.own is None else normal(self.own, a), d)
            images = (m.hessian(m.project(k(p))) for k, m in self.composed)
            return (p, *(h + q + n for h, q, n in zip(images, lifted, mu, strict=True)))
        bent = (m.hessian(m.project(b_i)) for m, b_i in zip(ms, bs, strict=True))
        c = a + self.adjoint(tuple(bent))
        d = tuple(normal(m, b_i) for m, b_i in zip(ms, bs, strict=True))
        p, own, mu = self._saddle(c, None if self.own is None else torch.zeros_like(a), d)
        duals = (
            q - inverse(m, k(p)) - n for (k, m), q, n in zip(self.composed, lifted, mu, strict=True)
        )
        return (p if self.own is None else p + self.own.hessian(p) + own, *duals)  # type: ignore[operator]

    def _saddle(self, c: Tensor, own: Tensor | None, d: Z) -> tuple[Tensor, Tensor | None, Z]:
        """(p, mu_0, (mu_1, ...)) of the system above, d_0 = own."""
        tangent, p, mu = self.tangent, torch.zeros_like(c) if own is None else own, ()
        assert isinstance(tangent, Spanned | Projected)
        if isinstance(tangent, Spanned):
            rest = (d_i - now for d_i, now in zip(d, self.constraints(p), strict=True))
            p = p + tangent.lift(tuple(rest))
        p = p + tangent.solve(c - self.hessian(p))
        left = c - self.hessian(p)
        if isinstance(tangent, Spanned):
            mu = tangent.multipliers(left)
        if self.own is None:
            return p, None, mu
        return p, normal(self.own, left - self.adjoint(mu)), mu


def _nudged(dual: Tensor, nudge: float) -> Tensor:
    if not nudge:
        return dual
    return dual + nudge * dual.abs().max() * noise(dual)


def _most(support: Tensor) -> int:
    return int(support.flatten(1).sum(1).max()) if support.numel() else 0
