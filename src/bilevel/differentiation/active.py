"""The optimality conditions on the active manifold: a small saddle point system.

For f(x) + g(x) + sum h_i(K_i x) at a solution x with duals y_i, every non-smooth term has its
manifold there, with tangent projection P_i and second derivative H_i (terms/manifolds.py), N_i = 1
- P_i; g counts as h_0 with K_0 = 1. The conditions say that

    A p + sum K_i* mu_i = c,    N_i K_i p = d_i,    A = f'' + sum K_i* H_i K_i,    mu_i normal.

p lies in a subspace, and A on it is what a Newton step would factor.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from .._tangents import constant
from ..terms.base import Proximable
from ..terms.manifolds import LARGEST, Manifold
from .linear_solvers import CG

if TYPE_CHECKING:
    from ..operators.base import Operator
    from ..problem import Problem

Z = tuple[Tensor, ...]


def declared(problem: Problem) -> bool:
    """Whether all manifolds of a problem come in closed form."""
    outers = [] if problem.g is None else [problem.g]
    outers += [h.outer for h in problem.h]
    return all(type(outer).manifold is not Proximable.manifold for outer in outers)


class Active:
    """The manifolds of a problem's terms at (x, y_1, ...), and the linear system on them."""

    def __init__(self, problem: Problem, point: Z) -> None:
        x, *y = (part.detach() for part in point)
        self.problem, self.x, self.y = problem, x, tuple(y)
        with constant():
            dual = -problem.slope(x, self.y)
            self.own = None if problem.g is None else problem.g.manifold(x, dual)
            self.composed: list[tuple[Operator, Manifold]] = [
                (h.operator, h.outer.manifold(h.operator(x), y_i))
                for h, y_i in zip(problem.h, self.y, strict=True)
            ]
        self._slope: tuple[Tensor, Tensor] | None = None
        self._tangent: Dense | Iterative | None = None

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
    def tangent(self) -> Dense | Iterative:
        if self._tangent is None:
            size = self.x[0].numel() if self.own is None else _most(self.own.support)
            self._tangent = (Dense if size <= LARGEST else Iterative)(self)
        return self._tangent

    # ------------------------------------------------------------------------------- products

    def hessian(self, p: Tensor) -> Tensor:
        """A p, for a p along the manifolds."""
        parts = [self._smooth(p)]
        if self.own is not None:
            parts.append(self.own.hessian(p))
        parts += [
            k.adjoint(manifold.hessian(manifold.project(k(p)))) for k, manifold in self.composed
        ]
        return reduce(Tensor.add, parts)

    def _smooth(self, p: Tensor) -> Tensor:
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
        return tuple(_normal(manifold, image) for (_, manifold), image in pairs)

    def adjoint(self, parts: Z) -> Tensor:
        """sum K_i* y_i over the composed terms."""
        pulled = [k.adjoint(part) for (k, _), part in zip(self.composed, parts, strict=True)]
        return reduce(Tensor.add, pulled, torch.zeros_like(self.x))

    # ---------------------------------------------------------------------------------- solves

    def solve(self, b: Z, transposed: bool) -> Z:
        """M^-1 b or M*^-1 b for M the derivative of `Problem.kkt`: D prox = (1 + H)^-1 P, put into
        it, leaves the saddle point system."""
        a, *bs = b
        ms = [manifold for _, manifold in self.composed]
        lifted = tuple(_inverse(m, b_i) for m, b_i in zip(ms, bs, strict=True))  # (1 + H) P b
        if not transposed:
            c = (a if self.own is None else _inverse(self.own, a)) - self.adjoint(lifted)
            d = tuple(-_normal(m, b_i) for m, b_i in zip(ms, bs, strict=True))
            p, _, mu = self._saddle(c, None if self.own is None else _normal(self.own, a), d)
            images = (m.hessian(m.project(k(p))) for k, m in self.composed)
            return (p, *(h + q + n for h, q, n in zip(images, lifted, mu, strict=True)))
        bent = (m.hessian(m.project(b_i)) for m, b_i in zip(ms, bs, strict=True))
        c = a + self.adjoint(tuple(bent))
        d = tuple(_normal(m, b_i) for m, b_i in zip(ms, bs, strict=True))
        p, own, mu = self._saddle(c, None if self.own is None else torch.zeros_like(a), d)
        duals = (
            q - _inverse(m, k(p)) - n
            for (k, m), q, n in zip(self.composed, lifted, mu, strict=True)
        )
        return (p if self.own is None else p + self.own.hessian(p) + own, *duals)  # type: ignore[operator]

    def _saddle(self, c: Tensor, own: Tensor | None, d: Z) -> tuple[Tensor, Tensor | None, Z]:
        """(p, mu_0, (mu_1, ...)) of the system above, d_0 = own."""
        p = torch.zeros_like(c) if own is None else own
        if d:
            rest = (d_i - now for d_i, now in zip(d, self.constraints(p), strict=True))
            p = p + self.tangent.lift(tuple(rest))
        p = p + self.tangent.solve(c - self.hessian(p))
        left = c - self.hessian(p)
        mu = self.tangent.multipliers(left) if d else ()
        if self.own is None:
            return p, None, mu
        return p, _normal(self.own, left - self.adjoint(mu)), mu


def _normal(manifold: Manifold, v: Tensor) -> Tensor:
    return v - manifold.project(v)


def _inverse(manifold: Manifold, v: Tensor) -> Tensor:
    """(1 + H) P v, what undoes D prox on the tangent space."""
    v = manifold.project(v)
    return v + manifold.hessian(v)


def _most(support: Tensor) -> int:
    return int(support.flatten(1).sum(1).max()) if support.numel() else 0


# ------------------------------------------------------------------------------- tangent spaces


class Dense:
    """The common tangent space by an orthonormal basis; A on it is written out."""

    def __init__(self, active: Active) -> None:
        self.active, x = active, active.x
        n = x[0].numel()
        if active.own is None:
            outer = torch.eye(n, dtype=x.dtype, device=x.device).expand(len(x), n, n)
        else:
            outer = active.own.basis()
        self.outer, self.basis = outer, outer
        if active.composed:
            self._intersect()
        matrix = self._columns(self.basis, active.hessian)
        matrix = self.basis.mT @ matrix
        self.values, self.vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        self.some = self.values.abs() > _cut(self.values.abs())

    def _columns(self, basis: Tensor, image) -> Tensor:  # (B, n, t) -> (B, m, t)
        x = self.active.x
        columns = [image(basis[:, :, j].reshape(x.shape)).flatten(1) for j in range(basis.shape[2])]
        return torch.stack(columns, 2) if columns else basis[:, :, :0]

    def _intersect(self) -> None:
        """The part of the outer basis that all N_i K_i send to 0; by singular values."""
        t = self.outer.shape[2]
        rows = self._columns(self.outer, lambda v: _flat(self.active.constraints(v)))
        images = self._columns(self.outer, lambda v: _flat(self.active.images(v)))
        size = images.flatten(1).abs().amax(1, keepdim=True) if t else images.new_ones(len(rows), 1)
        none = self.outer.square().sum(1) < 0.5  # columns of 0 are no directions
        empty = torch.diag_embed(none * torch.where(size > 0, size, 1.0))
        u, s, vh = torch.linalg.svd(torch.cat([rows, empty], 1), full_matrices=False)
        self.kept = s > _cut(torch.cat([s, size], 1))  # N_i K_i v may be 0 up to rounding of K_i v
        self.u, self.s, self.v = u[:, : rows.shape[1]], s, vh.mT
        free = int((~self.kept).sum(1).max()) if t else 0
        kernel = self.v * ~self.kept[:, None]
        self.basis = self.outer @ kernel[:, :, t - free :]

    def solve(self, r: Tensor) -> Tensor:
        """B (B* A B)^+ B* r, B the basis."""
        inner = torch.einsum("bij,bi->bj", self.basis @ self.vectors, r.flatten(1))
        inner = torch.where(self.some, inner / torch.where(self.some, self.values, 1.0), 0.0)
        return torch.einsum("bij,bj->bi", self.basis @ self.vectors, inner).reshape(r.shape)

    def lift(self, d: Z) -> Tensor:
        """The shortest p in g's tangent space with N_i K_i p = d_i."""
        inner = torch.einsum("bij,bi->bj", self.u, _flat(d)) * self._inverse()
        return torch.einsum("bij,bj->bi", self.outer @ self.v, inner).reshape(self.active.x.shape)

    def multipliers(self, r: Tensor) -> Z:
        """The shortest mu with sum K_i* mu_i = r on g's tangent space."""
        inner = torch.einsum("bij,bi->bj", self.outer @ self.v, r.flatten(1)) * self._inverse()
        return _split(torch.einsum("bij,bj->bi", self.u, inner), self.active.y)

    def _inverse(self) -> Tensor:
        return torch.where(self.kept, 1 / torch.where(self.kept, self.s, 1.0), 0.0)


def _cut(values: Tensor) -> Tensor:  # (B, t) -> (B, 1)
    """What counts as 0 among singular values."""
    if not values.shape[1]:
        return values.new_zeros(len(values), 1)
    return 8 * values.shape[1] * eps(values) * values.amax(1, keepdim=True)


class Iterative:
    """The same by conjugate gradients, for large tangent spaces: projections by an inner solve."""

    def __init__(self, active: Active) -> None:
        self.active = active
        self.tol = 1e-13 if active.x.dtype == torch.float64 else 1e-6

    def solve(self, r: Tensor) -> Tensor:
        def product(v: Tensor) -> Tensor:
            return self._project(self.active.hessian(v.reshape(r.shape))).flatten(1)

        goal = self._project(r).flatten(1)
        return CG()(product, goal, tol=self.tol).x.reshape(r.shape)

    def lift(self, d: Z) -> Tensor:
        return self._adjoint(self._normal_equation(_flat(d)))

    def multipliers(self, r: Tensor) -> Z:
        return _split(
            self._normal_equation(_flat(self.active.constraints(self._own(r)))), self.active.y
        )

    def _own(self, v: Tensor) -> Tensor:
        return v if self.active.own is None else self.active.own.project(v)

    def _adjoint(self, mu: Tensor) -> Tensor:
        parts = _split(mu, self.active.y)
        manifolds = (manifold for _, manifold in self.active.composed)
        normal = tuple(_normal(m, part) for m, part in zip(manifolds, parts, strict=True))
        return self._own(self.active.adjoint(normal))

    def _normal_equation(self, r: Tensor) -> Tensor:
        """(C C*)^+ r, C = N K P_0."""
        return CG()(lambda mu: _flat(self.active.constraints(self._adjoint(mu))), r, tol=self.tol).x

    def _project(self, v: Tensor) -> Tensor:
        v = self._own(v)
        if not self.active.composed:
            return v
        return v - self._adjoint(self._normal_equation(_flat(self.active.constraints(v))))


def _flat(parts: Z) -> Tensor:  # -> (B, m)
    return torch.cat([part.flatten(1) for part in parts], 1)


def _split(flat: Tensor, like: Z) -> Z:
    sizes = [part[0].numel() for part in like]
    return tuple(p.reshape(q.shape) for p, q in zip(flat.split(sizes, 1), like, strict=True))
