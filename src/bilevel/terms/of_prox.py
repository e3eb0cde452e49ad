"""The manifolds of terms that declare none: D prox(u + y) = (1 + H)^-1 P, read backwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps
from .._tangents import constant
from .manifolds import Coordinates, Manifold

if TYPE_CHECKING:
    from .base import Proximable


@dataclass(frozen=True, eq=False)
class OfProx(Manifold):
    """P and H from the eigenvalues d of D prox(u + y): T where d > 0, and H = 1/d - 1 there."""

    vectors: Tensor  # (B, n, n)
    eigenvalues: Tensor  # (B, n); 0 for normal directions

    @property
    def signature(self) -> Tensor:
        return (self.eigenvalues > 0).sum(1, keepdim=True)

    def project(self, v: Tensor) -> Tensor:
        return self._apply(self._tangent, v)

    def hessian(self, v: Tensor) -> Tensor:
        inverse = 1 / torch.where(self._tangent, self.eigenvalues, 1.0)
        return self._apply(torch.where(self._tangent, inverse - 1, 0.0), v)

    def contract(self, v: Tensor) -> Tensor:
        return self._apply(self.eigenvalues, v)

    def basis(self) -> Tensor:
        t = int(self._tangent.sum(1).max())
        order = self.eigenvalues.abs().argsort(dim=1, descending=True)[:, None, :t]
        columns = (self.vectors * self._tangent[:, None]).gather(
            2, order.expand(-1, self.vectors.shape[1], -1)
        )
        return columns

    @property
    def _tangent(self) -> Tensor:
        return self.eigenvalues > 0

    def _apply(self, values: Tensor, v: Tensor) -> Tensor:
        inner = torch.einsum("bji,bj->bi", self.vectors, v.flatten(1)) * values
        return torch.einsum("bij,bj->bi", self.vectors, inner).reshape(v.shape)


LARGEST = 512  # coordinates a sample up to which D prox is written out


def of_separable_prox(term: Proximable, w: Tensor) -> Coordinates:
    """The manifold of a term whose prox acts on each coordinate alone: one backward pass."""
    with constant(), torch.enable_grad():
        at = w.detach().requires_grad_()
        p = term.prox(at, 1.0)
        (slope,) = (
            torch.autograd.grad(p.sum(), at, allow_unused=True) if p.requires_grad else (None,)
        )
    slope = torch.zeros_like(w) if slope is None else slope
    free = slope > 64 * eps(w)
    curvature = torch.where(free, 1 / torch.where(free, slope, 1.0) - 1, 0.0)
    return Coordinates(free, w.new_full((len(w),), torch.nan), curvature)


def of_prox(term: Proximable, w: Tensor) -> OfProx:
    """The manifold of any term of which a function stands behind the prox; O(n) backward passes."""
    n = w.shape[1:].numel()
    if n > LARGEST or term.tuned_by_step:
        raise TypeError(
            f"{type(term).__name__} declares no manifold, and its prox "
            + (
                "has no function behind it."
                if term.tuned_by_step
                else f"has {n} coordinates, too many ({LARGEST}) to have it found by dense algebra."
            )
            + " Use FixedPoint(), which needs none, or give the term a `manifold`."
        )
    with constant(), torch.enable_grad():
        at = w.detach().requires_grad_()
        p = term.prox(at, 1.0).flatten(1)
        rows = [
            torch.autograd.grad(p[:, i].sum(), at, retain_graph=True)[0].flatten(1)
            for i in range(n if p.requires_grad else 0)
        ]
    matrix = torch.stack(rows, 1) if rows else w.new_zeros(len(w), n, n)
    matrix = torch.where(matrix.isfinite(), matrix, 0.0)
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    tangent = values > 64 * n * eps(w)
    return OfProx(
        torch.ones_like(w, dtype=torch.bool),
        w.new_full((len(w),), torch.nan),
        vectors,
        torch.where(tangent, values, 0.0),
    )
