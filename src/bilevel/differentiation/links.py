"""How the terms of a problem hold a solution: through local operators, or as spheres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._broadcast import expand, inner, norm_event
from ..operators.base import Identity, Operator
from .local_maps import Sparse, rows, sparse_matrices
from .noise import noise
from .sparse_saddle import Rows
from .tangent import inverse, normal

if TYPE_CHECKING:
    from ..terms.manifolds import Manifold
    from .active import Active

Z = tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Near:
    """A term whose K and J = D prox are local: (1 - J) K u - J s = e, a row for each number of its
    dual."""

    K: list[Sparse]  # one a sample
    J: list[Sparse]
    shape: torch.Size  # of the dual

    @staticmethod
    def of(k: Operator, manifold: Manifold, x: Tensor) -> Near | None:
        K, like = sparse_matrices(k, x), k(x)
        J = None if K is None else sparse_matrices(manifold.contract, like)
        return None if K is None or J is None else Near(K, J, like.shape)

    @property
    def count(self) -> int:
        return self.shape[1:].numel()

    def load(self, e: Tensor) -> float:
        return 0.0

    def level(self, e: Tensor) -> Tensor:  # -> (B, count)
        return e.flatten(1)

    def dual(self, found: Tensor, u: Tensor, e: Tensor) -> Tensor:
        """s, of what the rows' multipliers were found to be."""
        return found.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Far:
    """A term whose operator is not local, which holds one direction n at most: s = H P K u - (1 +
    H) P e + t n, where K* H P K is part of A, and <K* n, u> = <n, e> one row."""

    k: Operator
    manifold: Manifold
    n: Tensor | None  # of length 1

    @staticmethod
    def of(k: Operator, manifold: Manifold, x: Tensor) -> Far | None:
        """None if it holds more."""
        v = noise(k(x))
        held, other = (normal(manifold, part) for part in (v, v.flip(-1)))
        if not bool(held.any()):
            return Far(k, manifold, None)
        n = held / expand(norm_event(held), held)
        left = norm_event(other - expand(inner(n, other), n) * n)
        return Far(k, manifold, n) if bool((left <= 1e-6 * norm_event(other)).all()) else None

    @property
    def count(self) -> int:
        return 0 if self.n is None else 1

    def load(self, e: Tensor) -> Tensor:
        """What its s, but for H P K u and n, adds to the right-hand side."""
        return self.k.adjoint(inverse(self.manifold, e))

    def level(self, e: Tensor) -> Tensor:  # -> (B, count)
        return e.flatten(1)[:, :0] if self.n is None else inner(self.n, e)[:, None]

    def dual(self, found: Tensor, u: Tensor, e: Tensor) -> Tensor:
        s = self.manifold.hessian(self.manifold.project(self.k(u))) - inverse(self.manifold, e)
        return s if self.n is None else s + expand(found[:, 0], s) * self.n

    def bend(self, v: Tensor) -> Tensor:
        """K* H P K v."""
        return self.k.adjoint(self.manifold.hessian(self.manifold.project(self.k(v))))


Link = Near | Far


def links_of(active: Active) -> list[Link] | None:
    """Those of g, where there is one, and the composed terms; None if one is of neither kind."""
    terms = [] if active.own is None else [(Identity(), active.own)]
    found: list[Link] = []
    for k, manifold in [*terms, *active.composed]:
        link = Near.of(k, manifold, active.x) or Far.of(k, manifold, active.x)
        if link is None:
            return None
        found.append(link)
    return found


def near_first(links: Sequence[Link]) -> list[int]:
    return sorted(range(len(links)), key=lambda i: isinstance(links[i], Far))


def stacked(links: Sequence[Link], x: Tensor) -> list[Rows]:
    """The rows of all of them, those of the Near first; of each sample."""
    from scipy.sparse import block_diag, csr_array, eye_array, vstack  # not with `import bilevel`

    near = [link for link in links if isinstance(link, Near)]
    far = [(link.k, link.n) for link in links if isinstance(link, Far)]
    pulled = [rows(k.adjoint(u)) for k, u in far if u is not None]
    found, n = [], x[0].numel()
    for i in range(len(x)):
        K = vstack([csr_array((0, n)), *(link.K[i] for link in near)], format="csr")
        J = block_diag([csr_array((0, 0)), *(link.J[i] for link in near)], format="csr")
        Q = np.array([q[i] for q in pulled]).reshape(-1, n)
        found.append(Rows((eye_array(sum(link.count for link in near)) - J) @ K, J, K, Q))
    return found
