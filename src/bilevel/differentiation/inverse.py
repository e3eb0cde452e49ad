"""How the linear system of implicit differentiation is solved: by what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from .._broadcast import eps, tiny
from .conditions import Conditions
from .linear_solvers import (
    CG,
    GMRES,
    BiCGStab,
    Dense,
    LinearSolution,
    LinearSolver,
    Product,
    pseudo_solve,
)
from .linearisation import DENSE, FEW, Linearisation
from .refinement import RoughInverse

Z = tuple[Tensor, ...]
# the point -> (b, transposed -> M^-1 b or M*^-1 b), by the structure of the problem
Direct = Callable[[Z], Callable[[Z, bool], Z]]
_SOLVES = 6  # by a factor, of one system
_SMALL, _MEDIUM = 1000, 6000  # unknowns up to which GMRES comes first; may keep a large basis


class Inverse:
    """M^-1 b and M*^-1 b, judged by nobody: by the structure of the problem where it has one, by
    the solver named, or else by the size of M."""

    def __init__(
        self,
        M: Linearisation,
        solver: LinearSolver | None = None,
        tol: float = 1e-12,  # for a solver that names none
        direct: Direct | None = None,
        symmetric: bool = False,  # whether M is a Hessian
    ) -> None:
        self.M, self.solver, self.direct, self.symmetric = M, solver, direct, symmetric
        reachable = 256 * eps(M.z[0])  # a smaller residual is rounding
        named = None if solver is None else solver.tol
        self.tol = max(tol, reachable) if named is None else named
        # a tolerance that nobody named is an aim: ten times it, what z was solved to, will do
        self.accepted = (10 if named is None else 1.5) * self.tol

    def __call__(
        self,
        b: Tensor,  # (B, N)
        transposed: bool,
        scale: Tensor | None = None,  # what the residual is relative to; default |b|
        start: Tensor | None = None,
    ) -> LinearSolution:
        product = self.M.products(transposed)
        scale = torch.linalg.vector_norm(b, dim=1) if scale is None else scale
        if start is not None:
            solution = self(b - product(start), transposed, scale)
            return replace(solution, x=start + solution.x)
        if self._structure is not None:
            return self._solve_directly(self._structure, product, b, transposed, scale)
        if self.solver is not None and not isinstance(self.solver, Dense):
            return self.solver(product, b, tol=self.tol, scale=scale)
        few = 1 if self.M.near_identity else FEW
        if b.shape[1] <= few:
            return self._by_size(product, b, torch.zeros_like(b), scale, transposed)
        first = self._steps(product, b, scale, transposed)
        done = first.converged
        if bool(done.all()):
            return first
        start = torch.where((first.residual < 1)[:, None], first.x, 0.0)
        rest = self._by_size(product, b, start, scale, transposed)
        return LinearSolution(
            torch.where(done[:, None], first.x, rest.x),
            torch.where(done, first.residual, rest.residual),
            first.iterations + rest.iterations,
            done | rest.converged,
        )

    def of(self, M: Linearisation) -> Inverse:
        """That of another M, of the same equation or a tilted one."""
        direct, equation = self.direct, M.equation
        if direct is not None and isinstance(equation, Conditions):
            direct = equation.direct and equation.direct(equation.problem)
        return Inverse(M, self.solver, self.tol, direct, self.symmetric)

    @cached_property
    def _structure(self) -> Callable[[Z, bool], Z] | None:
        return None if self.direct is None else self.direct(self.M.z)

    def _steps(
        self, product: Product, b: Tensor, scale: Tensor, transposed: bool
    ) -> LinearSolution:
        """x + (b - M x), while that promises to end within as many products as it is worth: M = I
        where T is a Newton step, and M ~ I where T contracts. No Krylov method beats it where the
        spectrum of dT/dz fills a disc, and none costs as little beside its products."""
        worth = 10 if b.shape[1] <= DENSE else 100  # fewer where M may be written out
        inverse = RoughInverse(self.M.steps(transposed), b, worth)
        x = inverse(b, self.tol * scale)
        rest, products = b - product(x), 1
        left, before = torch.linalg.vector_norm(rest, dim=1), torch.linalg.vector_norm(b, dim=1)
        goal = self.tol * torch.minimum(before, scale)  # the first, unless a start made it large
        while products <= worth:
            going = (left > goal) & (left * (left / before) ** worth <= goal)
            if not bool(going.any()):
                break
            further = x + inverse(rest, goal)
            x = further if bool(going.all()) else torch.where(going[:, None], further, x)
            before = torch.where(going, left, before)
            rest, products = b - product(x), products + 1
            left = torch.linalg.vector_norm(rest, dim=1)
        return LinearSolution(x, left / scale.clamp_min(tiny(b)), products, left <= goal)

    def _by_size(
        self, product: Product, b: Tensor, start: Tensor, scale: Tensor, transposed: bool
    ) -> LinearSolution:
        """By M written out where that is small, or asked for; else by its products, and what these
        leave of an ill-conditioned Hessian of up to a thousand unknowns by M written out."""
        if self.solver is None and b.shape[1] > DENSE:
            solution = self._krylov(product, b, start, scale)
            if not self._written_out(b) or bool((solution.residual <= self.accepted).all()):
                return solution
        matrix = self.M.matrix().mT if transposed else self.M.matrix()
        x = pseudo_solve(matrix, b)
        left = torch.linalg.vector_norm(b - torch.einsum("bij,bj->bi", matrix, x), dim=1)
        residual = left / scale.clamp_min(tiny(b))
        return LinearSolution(x, residual, b.shape[1], residual <= 1.5 * self.tol)

    def _solve_directly(
        self,
        inverse: Callable[[Z, bool], Z],
        product: Product,
        b: Tensor,
        transposed: bool,
        scale: Tensor,
    ) -> LinearSolution:
        """One solve, then of the residual that an ill-conditioned system leaves, or a factor of few
        digits: while it falls to a tenth, for as many solves as are worth it. None that adds to it
        is kept."""
        x, rest, left, count = torch.zeros_like(b), b, torch.linalg.vector_norm(b, dim=1), 0
        while count < _SOLVES:
            further = x + self.M.flatten(inverse(self.M.split(rest), transposed))
            over = b - product(further)
            count, before, length = count + 1, left, torch.linalg.vector_norm(over, dim=1)
            helped = length < before
            x, rest = (torch.where(helped[:, None], *pair) for pair in ((further, x), (over, rest)))
            left = torch.where(helped, length, before)
            done = left <= 1.5 * self.tol * scale
            if bool((done | ~(left <= before / 10)).all()):
                break
        if self.symmetric and not bool((left <= self.accepted * scale).all()):  # as without it
            return self._by_size(product, b, torch.zeros_like(b), scale, transposed)
        return LinearSolution(x, left / scale.clamp_min(tiny(b)), count, done)

    def _krylov(self, product: Product, b: Tensor, start: Tensor, scale: Tensor) -> LinearSolution:
        """GMRES up to a thousand unknowns, for a Hessian CG; else short recurrences, and GMRES from
        where they stall."""
        size = b.shape[1]
        if size <= _SMALL and not self.symmetric:
            return GMRES()(product, b, tol=self.tol, start=start, scale=scale)
        short = BiCGStab() if not self.symmetric else CG(max_iter=min(2 * size, 1000))
        solution = short(product, b, tol=self.tol, start=start, scale=scale)
        if self._written_out(b) or bool(solution.converged.all()):
            return solution
        basis = 1000 if size <= _MEDIUM else 100
        return GMRES(basis=basis)(product, b, tol=self.tol, start=solution.x, scale=scale)

    def _written_out(self, b: Tensor) -> bool:
        """Whether M is that of a smooth energy, and not too large to be written out."""
        return self.symmetric and b.shape[1] <= _SMALL
