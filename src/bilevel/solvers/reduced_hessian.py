"""The Hessian on a support, and what it solves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import torch
from torch import Tensor

from ..differentiation.linear_solvers import CG
from ..operators.adapters import linear
from ..operators.sparse_matrix import SparseMatrix
from ..terms.composition import SmoothComposition
from .forms import DENSE
from .hessian import dense_hessian, second_derivative
from .saddle import solved, sound, sturdy


@dataclass(frozen=True, eq=False)
class ReducedHessian:
    """H = A* D A + diag(bend), D the second derivatives of F at A x: of the energy F(A x) + bend/2
    |x|^2 in the entries of x (B, k) that are used; I in the others.

    H^-1 v by the Cholesky factor. Where A is sparse and k > 1500, by conjugate gradients: a product
    costs four operations for each number stored in A, where the factor takes k^3 / 3 of them and
    k^2 numbers; by the factor all the same if a thousand products do not do.

    [1] Dembo, Eisenstat, Steihaug. Inexact Newton methods. SINUM, 1982.
    """

    f: SmoothComposition
    x: Tensor  # (B, k), detached
    used: Tensor  # (B, k) bool
    bend: Tensor  # (B or 1, k)

    @property
    def sound(self) -> bool:
        """Whether a solve is known to leave nothing to mend."""
        return not self._large and sound(self._factor)

    def solve(self, v: Tensor) -> Tensor:  # (B, k) -> (B, k)
        """H^-1 v, differentiable in v. By products, and not recorded: to four digits, as the next
        Newton step mends it [1]."""
        if not self._large:
            return self._direct(v)
        if not torch.is_grad_enabled():
            return self._by_products(v, 1e-4)
        exactly = partial(self._by_products, tol=1e-12)
        return linear(v, exactly, exactly)

    @property
    def _large(self) -> bool:
        return isinstance(self.f.operator, SparseMatrix) and self.x.shape[1] > DENSE

    def _direct(self, v: Tensor) -> Tensor:
        return solved(self._factor, v)

    @cached_property
    @torch.no_grad()
    def _factor(self) -> Tensor:  # (B, k, k), lower
        H, on = dense_hessian(self.f, self.x), self.used.to(self.x)
        if len(H) < len(on) or not bool(self.used.all()):
            H = H * on[:, :, None] * on[:, None, :]
        H.diagonal(dim1=1, dim2=2).add_(torch.where(self.used, self.bend, 1.0))
        return sturdy(H) if H.shape[-1] else H

    def _by_products(self, v: Tensor, tol: float) -> Tensor:
        found = CG()(self._product, v, tol=tol)
        return found.x if bool(found.converged.all()) else self._direct(v)

    def _product(self, v: Tensor) -> Tensor:
        A, inside = self.f.operator, torch.where(self.used, v, 0.0)
        image = A.adjoint(self._curvature * A(inside))
        return torch.where(self.used, image + self.bend * inside, v)

    @cached_property
    @torch.no_grad()
    def _curvature(self) -> Tensor:  # (B or 1, m)
        curvature = second_derivative(self.f.outer, self.f.operator(self.x))
        assert curvature is not None
        return curvature
