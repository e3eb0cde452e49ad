"""The common tangent space of the active manifolds, small or large."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from .._svd import svd
from ..terms.manifolds import Manifold
from .linear_solvers import CG
from .noise import noise

if TYPE_CHECKING:
    from .active import Active

Z = tuple[Tensor, ...]


def normal(manifold: Manifold, v: Tensor) -> Tensor:
    return v - manifold.project(v)


def inverse(manifold: Manifold, v: Tensor) -> Tensor:
    """(1 + H) P v, what undoes D prox on the tangent space."""
    v = manifold.project(v)
    return v + manifold.hessian(v)


class Spanned:
    """The common tangent space by an orthonormal basis; A on it is written out."""

    def __init__(self, active: Active) -> None:
        self.active, x = active, active.x
        n = x.shape[1:].numel()
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

    def flat(self, tol: float) -> Tensor:  # (B, t) bool
        """The directions in which A has no curvature, up to tol times the largest."""
        size = self.values.abs()
        largest = size.amax(1, keepdim=True) if size.shape[1] else size
        real = (self.basis @ self.vectors).square().sum(1) > 0.5  # no column of 0
        return real & (self.values <= 8 * size.shape[1] * tol * largest)

    def direction(self, j: int) -> Tensor:  # (B, *event)
        return (self.basis @ self.vectors[:, :, j : j + 1]).reshape(self.active.x.shape)

    def _columns(
        self, basis: Tensor, image: Callable[[Tensor], Tensor]
    ) -> Tensor:  # (B, n, t) -> (B, m, t)
        x = self.active.x
        columns = [image(basis[:, :, j].reshape(x.shape)).flatten(1) for j in range(basis.shape[2])]
        if not columns:
            return x.new_empty(len(x), image(torch.zeros_like(x)).shape[1:].numel(), 0)
        return torch.stack(columns, 2)

    def _intersect(self) -> None:
        """The part of the outer basis that all N_i K_i send to 0; by singular values."""
        t = self.outer.shape[2]
        rows = self._columns(self.outer, lambda v: _flat(self.active.constraints(v)))
        images = self._columns(self.outer, lambda v: _flat(self.active.images(v)))
        size = images.flatten(1).abs().amax(1, keepdim=True) if t else images.new_ones(len(rows), 1)
        none = self.outer.square().sum(1) < 0.5  # columns of 0 are no directions
        empty = torch.diag_embed(none * torch.where(size > 0, size, 1.0))
        u, s, vh = svd(torch.cat([rows, empty], 1))
        self.kept = s > _cut(torch.cat([s, size], 1))  # N_i K_i v may be 0 up to rounding of K_i v
        self.u, self.s, self.v = u[:, : rows.shape[1]], s, vh.mT
        free = int((~self.kept).sum(1).max()) if t else 0
        kernel = self.v * ~self.kept[:, None]
        self.basis = self.outer @ kernel[:, :, t - free :]

    @property
    def determines(self) -> Tensor:  # (B,) bool
        """Whether no normal vectors mu_i, not all 0, have sum K_i* mu_i normal to g's manifold: a
        random normal vector lies in the range of the N_i K_i then."""
        ms = [manifold for _, manifold in self.active.composed]
        mu = _flat(tuple(normal(m, noise(y)) for m, y in zip(ms, self.active.y, strict=True)))
        inside = torch.einsum("bij,bi->bj", self.u, mu) * self.kept
        left = mu - torch.einsum("bij,bj->bi", self.u, inside)
        return torch.linalg.vector_norm(left, dim=1) <= 1e-6 * torch.linalg.vector_norm(mu, dim=1)

    def solve(self, r: Tensor) -> Tensor:
        """B (B* A B)^+ B* r, B the basis."""
        inner = torch.einsum("bij,bi->bj", self.basis @ self.vectors, r.flatten(1))
        inner = torch.where(self.some, inner / torch.where(self.some, self.values, 1.0), 0.0)
        return torch.einsum("bij,bj->bi", self.basis @ self.vectors, inner).reshape(r.shape)

    def trace(self, image: Callable[[Tensor], Tensor]) -> Tensor:  # -> (B,)
        """tr (B* A B)^+ B* image B."""
        u = self.basis @ self.vectors
        shares = (u * self._columns(u, image)).sum(1)
        return torch.where(self.some, shares / torch.where(self.some, self.values, 1.0), 0.0).sum(1)

    def lift(self, d: Z) -> Tensor:
        """The shortest p in g's tangent space with N_i K_i p = d_i."""
        if not d:
            return torch.zeros_like(self.active.x)
        inner = torch.einsum("bij,bi->bj", self.u, _flat(d)) * self._inverse()
        return torch.einsum("bij,bj->bi", self.outer @ self.v, inner).reshape(self.active.x.shape)

    def multipliers(self, r: Tensor) -> Z:
        """The shortest mu with sum K_i* mu_i = r on g's tangent space."""
        if not self.active.composed:
            return ()
        inner = torch.einsum("bij,bi->bj", self.outer @ self.v, r.flatten(1)) * self._inverse()
        return _split(torch.einsum("bij,bj->bi", self.u, inner), self.active.y)

    def _inverse(self) -> Tensor:
        return torch.where(self.kept, 1 / torch.where(self.kept, self.s, 1.0), 0.0)


def _cut(values: Tensor) -> Tensor:  # (B, t) -> (B, 1)
    """What counts as 0 among singular values."""
    if not values.shape[1]:
        return values.new_zeros(len(values), 1)
    return 8 * values.shape[1] * eps(values) * values.amax(1, keepdim=True)


class Projected:
    """The tangent space of g alone, of any dimension, by its projection: conjugate gradients."""

    def __init__(self, active: Active) -> None:
        self.active = active

    def solve(self, r: Tensor) -> Tensor:
        own = self.active.own

        def along(v: Tensor) -> Tensor:
            return v if own is None else own.project(v)

        def product(v: Tensor) -> Tensor:
            return along(self.active.hessian(along(v.reshape(r.shape)))).flatten(1)

        tol = 1e-13 if r.dtype == torch.float64 else 1e-6
        return along(CG()(product, along(r).flatten(1), tol=tol).x.reshape(r.shape))


def _flat(parts: Z) -> Tensor:  # -> (B, m)
    return torch.cat([part.flatten(1) for part in parts], 1)


def _split(flat: Tensor, like: Z) -> Z:
    sizes = [part.shape[1:].numel() for part in like]
    return tuple(p.reshape(q.shape) for p, q in zip(flat.split(sizes, 1), like, strict=True))
