"""Solvers of M w = b for a batch of unrelated systems of which only products are known: b is (B,
N).

Every system stops by itself, at |b - M w| <= tol scale with scale = |b| unless given, and keeps its
answer from then on, so that a batch gives what its samples give alone. M may be singular (it is,
whenever a dual is not unique): each solver returns what it reached and the true residual; whoever
asked judges.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import eps, tiny
from .._svd import svd

Product = Callable[[Tensor], Tensor]  # (B, N) -> (B, N)


@dataclass(frozen=True, eq=False)
class LinearSolution:
    x: Tensor  # (B, N)
    residual: Tensor  # (B,): |b - M x| / scale, measured, 0 for b = 0
    iterations: int  # products with M, the most over the batch
    converged: Tensor  # (B,) bool


@dataclass(frozen=True)
class LinearSolver(ABC):
    """w with |b - M w| <= tol |b|."""

    tol: float | None = None  # default: a tenth of the tolerance that the problem was solved to
    max_iter: int = 1000

    exact = True  # False for a solver that is stopped early on purpose

    def __call__(
        self,
        product: Product,
        b: Tensor,
        *,
        tol: float = 1e-10,  # where the solver names none
        start: Tensor | None = None,
        scale: Tensor | None = None,
    ) -> LinearSolution:
        tol, scale = self.tol or tol, _length(b) if scale is None else scale
        x, iterations = self.solve(
            product, b, tol * scale, torch.zeros_like(b) if start is None else start
        )
        residual = _length(b - product(x)) / scale.clamp_min(tiny(b))
        return LinearSolution(x, residual, iterations, residual <= max(1.5 * tol, 8 * eps(b)))

    @abstractmethod
    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        """(w, number of products), from the start x; the goal (B,) is for |b - M w|."""


def _length(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(1, keepdim=True)


def _ratio(a: Tensor, b: Tensor) -> Tensor:  # a / b, and 0 where b is 0
    return torch.where(b == 0, 0.0, a / torch.where(b == 0, 1.0, b))


@dataclass(frozen=True)
class CG(LinearSolver):
    """Conjugate gradients (Hestenes, Stiefel 1952): for symmetric positive semidefinite M only.

    An M that is not symmetric is refused: the test is one pair of products with random vectors.
    """

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        self._refuse_nonsymmetric(product, b)
        r = b - product(x)
        p, square = r, _dot(r, r)
        best, least = x, square
        for k in range(self.max_iter):
            # a residual that grows that much: the system is inconsistent
            going = (square > goal[:, None].square()) & (square <= 1e16 * least)
            if not bool(going.any()):
                return best, k
            q = product(p)
            step = torch.where(going, _ratio(square, _dot(p, q)), 0.0)
            x, r = x + step * p, r - step * q
            previous, square = square, _dot(r, r)
            p = torch.where(going, r + _ratio(square, previous) * p, p)
            best, least = torch.where(square < least, x, best), torch.minimum(square, least)
        return best, self.max_iter

    @staticmethod
    def _refuse_nonsymmetric(product: Product, b: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        u, v = (
            torch.randn(b.shape, generator=generator, dtype=torch.float64).to(b) for _ in range(2)
        )
        mu, mv = product(u), product(v)
        difference = (_dot(mu, v) - _dot(u, mv)).abs()
        size = (_length(mu) * _length(v) + _length(u) * _length(mv))[:, None]
        if bool(
            (difference > 1e3 * eps(b) * size + 1e-5 * size * (b.dtype == torch.float32)).any()
        ):
            raise TypeError(
                "CG needs a symmetric operator, and this one is not (<Mu, v> and <u, Mv> differ by "
                f"{float((difference / size.clamp_min(tiny(b))).max()):.1e}). Use GMRES() or "
                "BiCGStab()."
            )


@dataclass(frozen=True)
class BiCGStab(LinearSolver):
    """Stabilised biconjugate gradients (van der Vorst 1992), any M; short recurrences, may stall:
    the residual tells."""

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        r = b - product(x)
        shadow, p, v = r, torch.zeros_like(r), torch.zeros_like(r)
        rho = alpha = omega = torch.ones_like(b[:, :1])
        best, best_size = x, _length(r)[:, None]
        for k in range(0, self.max_iter, 2):
            going = best_size > goal[:, None]
            if not bool(going.any()):
                return best, k
            previous, rho = rho, _dot(shadow, r)
            p = r + _ratio(rho, previous) * _ratio(alpha, omega) * (p - omega * v)
            v = product(p)
            alpha = _ratio(rho, _dot(shadow, v))
            s = r - alpha * v
            t = product(s)
            omega = _ratio(_dot(t, s), _dot(t, t))
            x, r = x + alpha * p + omega * s, s - omega * t
            size = _length(r)[:, None]
            better = going & (size < best_size)  # NaN is never better
            best, best_size = torch.where(better, x, best), torch.where(better, size, best_size)
        return best, self.max_iter


@dataclass(frozen=True)
class GMRES(LinearSolver):
    """Generalised minimal residuals (Saad, Schultz 1986), re-orthogonalised: any M, singular ones
    if consistent.

    The basis is capped: at `basis` vectors, or where they would pass a gibibyte; then it restarts.
    """

    basis: int = 1000

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        cap = max(20, min(self.basis, int(2**30 / (b.numel() * b.element_size() + 1))))
        cap = min(cap, max(b.shape[1], 1))  # then the Krylov space is all there is
        used, size = 0, None
        while True:
            r = b - product(x)
            previous, size = size, _length(r)
            going = size > goal
            stalled = previous is not None and bool((size > 0.99 * previous)[going].all())
            if not bool(going.any()) or used >= self.max_iter or stalled:
                return x, used
            x, n = _arnoldi(product, r, x, goal, going, min(cap, self.max_iter - used))
            used += n


def _arnoldi(
    product: Product, r: Tensor, x: Tensor, goal: Tensor, going: Tensor, m: int
) -> tuple[Tensor, int]:
    """One GMRES cycle: x plus the best of the Krylov space of r, looked at every few steps."""
    size = _length(r)
    basis = [r / size.clamp_min(tiny(r))[:, None]]
    stacked = r.new_empty(len(r), m + 1, r.shape[1]) if r.numel() * (m + 1) < 2**24 else None
    if stacked is not None:
        stacked[:, 0] = basis[0]
    hessenberg = r.new_zeros(len(r), m + 1, m)
    answer, look = x, 8
    for j in range(m):
        V = stacked[:, : j + 1] if stacked is not None else torch.stack(basis, 1)
        w = product(V[:, j])
        before = _length(w)
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            h = torch.einsum("bjn,bn->bj", V, w)
            w = w - torch.einsum("bj,bjn->bn", h, V)
            hessenberg[:, : j + 1, j] += h
        length = _length(w)
        length = torch.where(
            length > 10 * eps(r) * before, length, 0.0
        )  # an invariant subspace: nothing is left
        hessenberg[:, j + 1, j] = length
        v = _ratio(w, length[:, None])
        if stacked is not None:
            stacked[:, j + 1] = v
        else:
            basis.append(v)
        last = j + 1 == m
        if j + 1 >= look or last:
            look = j + 1 + max(8, (j + 1) // 4)
            H, first = hessenberg[:, : j + 2, : j + 1], torch.zeros_like(hessenberg[:, : j + 2, 0])
            first[:, 0] = size
            y = _least_squares(H, first)
            reached = _length(first - torch.einsum("bij,bj->bi", H, y))
            candidate = x + torch.einsum("bj,bjn->bn", y, V)
            answer = torch.where(going[:, None], candidate, answer)
            going = going & (reached > 0.5 * goal)
            if not bool(going.any()) or last:
                return answer, j + 1
    return answer, m


def _least_squares(H: Tensor, b: Tensor) -> Tensor:
    """argmin |b - H y| of least length, singular directions at rounding level dropped."""
    return torch.einsum("bij,bj->bi", torch.linalg.pinv(H, rtol=4 * H.shape[1] * eps(H)), b)


@dataclass(frozen=True)
class Neumann(LinearSolver):
    """w = d (b + J b + ... + J^(terms-1) b) with J = I - d M, d the damping: `terms` terms of the
    series, no more, whatever the residual; fewer where the tolerance is met."""

    terms: int = 10
    damping: float = 1.0

    exact = False

    def __post_init__(self) -> None:
        if self.terms < 1:
            raise ValueError(f"Neumann needs at least 1 term, got {self.terms}.")
        if not 0 < self.damping <= 1:
            raise ValueError(f"Neumann needs a damping in (0, 1], got {self.damping}.")

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        term = total = self.damping * b
        for k in range(1, self.terms):
            term = torch.sub(term, product(term), alpha=self.damping)  # the total's, damped
            if bool((_length(term) <= self.damping * goal).all()):
                return total, k
            total = total + term
        return total, self.terms - 1


@dataclass(frozen=True)
class Anderson(LinearSolver):
    """The fixed-point iteration w <- b + J w with Anderson mixing (Walker, Ni 2011), J = I - M."""

    memory: int = 10

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        best = x
        best_size = torch.full_like(goal, torch.inf)
        xs: list[Tensor] = []
        rs: list[Tensor] = []
        for k in range(self.max_iter):
            r = b - product(x)
            size = _length(r)
            better = (size < best_size) & (best_size > goal)
            best, best_size = (
                torch.where(better[:, None], x, best),
                torch.where(better, size, best_size),
            )
            if bool((best_size <= goal).all()):
                return best, k
            xs, rs = [*xs, x][-self.memory - 1 :], [*rs, r][-self.memory - 1 :]
            if len(xs) == 1:
                x = x + r
                continue
            dx = torch.stack([a - c for c, a in zip(xs, xs[1:], strict=False)], -1)
            dr = torch.stack([a - c for c, a in zip(rs, rs[1:], strict=False)], -1)
            gamma = torch.einsum("bij,bj->bi", torch.linalg.pinv(dr, rtol=100 * eps(b)), r)
            x = x + r - torch.einsum("bni,bi->bn", dx + dr, gamma)
        return best, self.max_iter


@dataclass(frozen=True)
class Dense(LinearSolver):
    """M written out and its truncated SVD: the answer of least length. For small N: N products and
    O(N^3) a sample."""

    def solve(self, product: Product, b: Tensor, goal: Tensor, x: Tensor) -> tuple[Tensor, int]:
        n = b.shape[1]
        columns = [
            product(column.expand_as(b)) for column in torch.eye(n, dtype=b.dtype, device=b.device)
        ]
        return pseudo_solve(torch.stack(columns, -1), b), n


def pseudo_solve(matrix: Tensor, b: Tensor) -> Tensor:
    """The least-squares solution of least length of a batch of dense systems (B, N, N), (B, N);
    NaN where the matrix is not finite."""
    if matrix.shape[-1] == 1:
        entry = matrix[:, 0]
        return torch.where(entry == 0, 0 * b, b / torch.where(entry == 0, 1.0, entry)) + 0 * entry
    lost = ~matrix.isfinite().flatten(1).all(1)
    if bool(lost.any()):
        x = pseudo_solve(matrix.masked_fill(lost[:, None, None], 0.0), b)
        return x.masked_fill(lost[:, None], torch.nan)
    u, s, vh = svd(matrix)
    cut = 32 * matrix.shape[-1] * eps(b) * s[:, :1]
    inverse = torch.where(s > cut, 1 / torch.where(s > cut, s, 1.0), 0.0)
    return torch.einsum("bji,bj->bi", vh, inverse * torch.einsum("bji,bj->bi", u, b))
