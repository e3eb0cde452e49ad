"""How much a primal-dual step is proven to contract, and where it is smooth: a bound's grounds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import difference, expand, inner, larger, like, norm_event
from ..problem import Problem
from ..solvers.primal_dual import PrimalDual
from ..solvers.steps import lipschitz
from ..terms.base import Proximable
from ..terms.manifolds import Clusters, Coordinates, Face

if TYPE_CHECKING:
    from ..solvers.base import Solver
    from ..terms.base import Smooth, Term

Z = tuple[Tensor, ...]


class Unproven(ValueError):
    """An assumption of the theorem fails, or its constant is not declared."""


@dataclass(frozen=True)
class Contraction:
    """|S(z) - S(z')|_P <= (1 - gap) |z - z'|_P for `PrimalDual.averaged`, S: (x, y) -> (x', y'), in

        |(x, y)|_P^2 = |x|^2 / tau - 2 <Kx, y> + |y|^2 / sigma,

    and so |z - z*|_P <= |z - S(z)|_P / gap (Banach 1922). All numbers one a sample.

    Proof, d for differences: P(z - S z) - (grad f(x), 0) is in A(S z), A the monotone operator of g
    and the h_i*. With mu of f below L and (L + mu) / 2 <= 1 / tau - sigma |K|^2,

        |dz'|_P^2 + (2 mu_g + mu) |dx'|^2 + 2 gamma |dy'|^2 <= |dz|_P^2 - mu |dx|^2,

    gamma = 1 / L_h, the strong convexity of every h_i*, and |dz'|_P^2 <= (1 + kappa) (|dx'|^2 / tau
    + |dy'|^2 / sigma), kappa = sqrt(tau sigma) |K|. After
    [1] Chambolle, Pock. A first-order primal-dual algorithm for convex problems. JMIV, 2011.
    [2] Bogensperger, Ehrhardt, Pock, Salehi, Wong. An adaptively inexact method for bilevel
        learning using primal-dual style differentiation. 2024.
    """

    problem: Problem
    tau: Tensor
    sigma: Tensor
    norm: Tensor  # |K|; 0 without composed terms
    gap: Tensor
    smooth: Tensor  # L of the term handled by its gradient
    bend: Tensor  # a Lipschitz constant of that term's Hessian

    @staticmethod
    def of(problem: Problem, solver: Solver, x: Tensor) -> Contraction:
        """Unproven where the terms do not declare what the proof needs."""
        if not isinstance(solver, PrimalDual) or solver.preconditioned:
            raise Unproven(f"{type(solver).__name__} is not PrimalDual() with two steps")
        f, g = solver.split(problem)
        if g is problem.f and g is not None and not problem.f.hessian_lipschitz(x) == 0.0:  # type: ignore[union-attr]
            raise Unproven(f"{type(g).__name__}, of which the prox is taken, is not quadratic")
        one = x.new_ones(len(x))
        tau, sigma = (like(step, x) * one for step in solver.steps)  # type: ignore[arg-type]
        norm = 0 * one
        if problem.h:
            norm = like(solver._square(problem, x), x).sqrt() * one
        L, bend, mu = 0 * one, 0 * one, 0 * one
        if f is not None:
            known = f.hessian_lipschitz(x)
            if not f.lipschitz_known or known is None:
                raise Unproven(f"{_names(f)} declares no Lipschitz constant of its Hessian")
            L, bend = like(lipschitz(f, x), x) * one, like(known, x) * one
            room = 2 * (1 / tau - sigma * norm.square()) - L
            mu = torch.minimum(like(f.strong_convexity(x), x) * one, room)
        own = like(0.0 if g is None else g.strong_convexity(x), x) * one
        if not bool((mu >= 0).all() & (own >= 0).all() & (2 * own + mu > 0).all()):
            raise Unproven("the energy is not strongly convex, as far as its terms declare")
        kappa, pull = (tau * sigma).sqrt() * norm, (2 * own + mu) * tau
        if problem.h:
            gamma = reduce(torch.minimum, [_conjugate_convexity(h.outer, h.operator(x)) * one
                                           for h in problem.h])  # fmt: skip
            pull, mu = torch.minimum(pull, 2 * gamma * sigma) / (1 + kappa), 0 * mu
        rate = ((1 - mu * tau) / (1 + pull)).clamp_min(0.0).sqrt()
        return Contraction(problem, tau, sigma, norm, 1 - rate, L, bend)

    def length(self, x: Tensor, y: Z) -> Tensor:  # -> (B,)
        """|(x, y)|_P."""
        square = inner(x, x) / self.tau
        for h, y_i in zip(self.problem.h, y, strict=True):
            square = square - 2 * inner(h.operator(x), y_i) + inner(y_i, y_i) / self.sigma
        return square.clamp_min(0.0).sqrt()

    @property
    def kappa(self) -> Tensor:
        return (self.tau * self.sigma).sqrt() * self.norm

    def parts(self, length: Tensor) -> tuple[Tensor, Tensor]:
        """Bounds of |x| and |y| by |(x, y)|_P."""
        own = length / (1 - self.kappa).sqrt()
        return own * self.tau.sqrt(), own * self.sigma.sqrt() * (self.norm > 0)

    @property
    def push(self) -> Tensor:
        """|S(z) - S'(z)|_P where grad f differs by 1 in the two: x' by tau, y' by 2 sigma tau |K|
        at most."""
        return ((1 + self.kappa) * self.tau * (1 + 4 * self.kappa.square())).sqrt()

    def settled(self, x: Tensor, y: Z, image: tuple[Tensor, Z]) -> Tensor:  # -> (B,)
        """A bound of |z - z*|_P, z = (x, y), S(z) = image; Unproven unless every prox acts at z* by
        the affine piece that it acts by at z.

        A prox with step s moves its point u and subgradient d, u + s d the argument, by as much as
        the argument at most, so u + d by max(1, 1 / s) times that. The manifold's margin, 0 at a
        kink, moves with u + d: as much where coordinates are on their own, else 2 sqrt(n) times as
        much at most, a sum of up to n of them.
        """
        new, duals = image
        error = self.length(x - new, difference(y, duals)) / self.gap
        dx, dy = self.parts(error)
        problem, pull = self.problem, self.problem.pull(x, y)
        if problem.g is not None:
            slope = pull if problem.f is None else pull + problem.f.grad(x)
            moved = (dx + self.tau * self.norm * dy) * larger(1.0, 1 / self.tau)
            self._off_kinks(problem.g, new, (x - new) / expand(self.tau, x) - slope, moved)
            # of the step 1, at which L is pulled on
            moved = (1 + self.smooth) * dx + self.norm * dy
            self._off_kinks(problem.g, x, -slope, moved)
        for h, y_i, new_i in zip(problem.h, y, duals, strict=True):
            sigma = expand(self.sigma, y_i)
            seen = (y_i - new_i) / sigma + h.operator(2 * new - x)
            moved = (1 + 2 * self.kappa.square()) * dy + 3 * self.sigma * self.norm * dx
            moved = moved * larger(1.0, 1 / self.sigma)
            self._off_kinks(h.outer, seen, new_i, moved)
            self._off_kinks(h.outer, h.operator(x), y_i, self.norm * dx + dy)
        return error

    @staticmethod
    def _off_kinks(term: Proximable, u: Tensor, dual: Tensor, moved: Tensor) -> None:
        if getattr(term, "quadratic", False):
            return
        manifold = term.manifold(u, dual)
        flat = isinstance(manifold, Coordinates | Clusters | Face)
        if not isinstance(manifold, Coordinates):
            moved = 2 * u.shape[1:].numel() ** 0.5 * moved
        if not flat or bool(manifold.margin.isnan().any()):
            raise Unproven(f"the prox of {type(term).__name__} is not known to be piecewise affine")
        if not bool((moved < manifold.margin).all()):
            raise Unproven(
                f"the active set of {type(term).__name__} is not proven: its margin is "
                f"{float(manifold.margin.min()):.1e}, the error of the solution at most "
                f"{float(moved.max()):.1e}"
            )


def _conjugate_convexity(outer: Term, image: Tensor) -> Tensor:
    """1 / L for a smooth outer: its conjugate's strong convexity."""
    L = getattr(outer, "lipschitz", lambda image: None)(image)
    if L is None:
        raise Unproven(f"{type(outer).__name__} is not smooth, so that its dual is not contracted")
    return 1 / like(L, norm_event(image))


def _names(f: Smooth) -> str:
    return " + ".join(type(term).__name__ for term in getattr(f, "terms", (f,)))
