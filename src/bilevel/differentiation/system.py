"""The linear system of implicit differentiation: M = I - dT/dz, frozen at the solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps, tiny
from .._tangents import constant
from ..errors import NotConverged, NotUnique, OnFail, fail
from . import probes
from .certificate import Certificate
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
from .series import Series
from .unit import Unit

if TYPE_CHECKING:
    from ..problem import Problem

Z = tuple[Tensor, ...]
# the point -> (b, transposed -> M^-1 b or M*^-1 b), by the structure of the problem
Direct = Callable[[Z], Callable[[Z, bool], Z]]
DENSE = 160  # unknowns a sample up to which M is written out
_SMALL, _MEDIUM = 1000, 6000  # ... up to which GMRES comes first; may keep a large basis


class System:
    """Products and solves with M = d residual / dz at z, kept as a recorded graph, and with M*."""

    def __init__(
        self,
        z: Z,
        equation: Callable[[Z], Z],  # z -> residual, 0 at the solution
        solver: LinearSolver | None,
        tol: float,  # for a solver that names none
        on_fail: OnFail,
        certificate: Certificate,
        direct: Direct | None = None,
        energy: Problem | None = None,  # whose gradient the residual is
    ) -> None:
        self.equation, self.direct, self.energy = equation, direct, energy
        self.z = tuple(part.detach().requires_grad_() for part in z)
        if not isinstance(solver, Unit):
            self.residual  # noqa: B018  at the parameters of now: they may change before backward
        self.solver, self.certificate = solver, certificate
        self.on_fail: OnFail = on_fail
        reachable = 256 * eps(self.z[0])  # a smaller residual is rounding
        named = None if solver is None else solver.tol
        self.tol = max(tol, reachable) if named is None else named
        # a tolerance that nobody named is an aim: ten times it, what z was solved to, will do
        self.accepted = (10 if named is None else 1.5) * self.tol
        self.shapes = [part.shape for part in z]
        self._jvp: tuple[Tensor, Z] | None = None
        self._matrix: Tensor | None = None
        self._direct: Callable[[Z, bool], Z] | None = None
        # the backward pass, its largest right-hand side, and the residual left of it
        self._noise: tuple[int, Tensor, Tensor] | None = None

    @cached_property
    def residual(self) -> Z:
        with constant(), torch.enable_grad():
            return self.equation(self.z)

    def flatten(self, z: Z) -> Tensor:  # -> (B, N)
        return z[0].flatten(1) if len(z) == 1 else torch.cat([part.flatten(1) for part in z], 1)

    def split(self, flat: Tensor) -> Z:
        if len(self.shapes) == 1:
            return (flat.reshape(self.shapes[0]),)
        sizes = [shape[1:].numel() for shape in self.shapes]
        return tuple(p.reshape(s) for p, s in zip(flat.split(sizes, 1), self.shapes, strict=True))

    def transposed_product(self, w: Tensor) -> Tensor:
        """M* w, one backward pass through the recorded residual."""
        return self.flatten(_vjp(self.residual, self.z, self.split(w.detach())))

    def product(self, d: Tensor) -> Tensor:
        """M d: the derivative of u -> M* u, which is linear, applied backward."""
        if self._jvp is None:
            with torch.enable_grad():
                u = tuple(torch.zeros_like(part, requires_grad=True) for part in self.residual)
                v = _vjp(self.residual, self.z, u, create_graph=True)
            self._jvp = (u, v)  # type: ignore[assignment]
        u, v = self._jvp  # type: ignore[misc]
        linked = [(a, b) for a, b in zip(v, self.split(d.detach()), strict=True) if a.requires_grad]
        return self.flatten(_vjp(tuple(a for a, _ in linked), u, tuple(b for _, b in linked)))  # type: ignore[arg-type]

    def solve(self, b: Tensor, transposed: bool) -> Tensor:
        """M^-1 b or M*^-1 b; 0 for right-hand sides at the noise level of this backward pass."""
        quiet, scale = self._quiet(b)
        probe = probes.active() if transposed else None
        if not bool(scale.isfinite().all()):
            return self._solve_finite(b, scale.isfinite(), transposed)
        solution = self._solve(b, transposed, scale, probe and probe.start(b))
        left = torch.where(quiet, 0.0, solution.residual * scale)
        current, _, before = self._noise  # type: ignore[misc]
        self._noise = (current, scale, torch.maximum(left, before))
        self._judge(solution, quiet, b, transposed)
        if probe is not None:
            probe.solved(self, torch.where(quiet[:, None], 0.0, solution.x), b)
        return torch.where(quiet[:, None], 0.0, solution.x)

    def _solve_finite(self, b: Tensor, finite: Tensor, transposed: bool) -> Tensor:
        """The samples whose right-hand side is finite; NaN for the others, if that is accepted."""
        fail(
            NotConverged(
                "the gradient that reaches the solution is NaN or inf in "
                f"{int((~finite).sum())} of {len(b)} samples: the loss is not finite there, or has "
                "no derivative. Look for a division, a root or a logarithm of 0 in the loss."
            ),
            self.on_fail,
        )
        self._noise = None
        solved = self.solve(torch.where(finite[:, None], b, 0.0), transposed)
        return torch.where(finite[:, None], solved, torch.nan)

    def quiet(self, b: Tensor) -> bool:
        return bool(self._quiet(b)[0].all())

    def _quiet(self, b: Tensor) -> tuple[Tensor, Tensor]:
        """(is b noise?, the largest right-hand side so far) in this backward pass, both (B,).

        The second chord step sees what the first solve left: it is noise up to the tolerance, or to
        what was reached.
        """
        length = torch.linalg.vector_norm(b, dim=1)
        current, scale, left = torch._C._current_graph_task_id(), length, torch.zeros_like(length)
        if self._noise is not None and self._noise[0] == current:
            scale, left = torch.maximum(length, self._noise[1]), self._noise[2]
        self._noise = (current, scale, left)
        return length <= torch.maximum(1.5 * self.tol * scale, 2 * left), scale

    def newton_step(self, b: Tensor) -> tuple[Tensor, int]:
        """(M^-1 b, products), judged by nobody: the caller looks at what it brings."""
        solution = self._solve(b, False, torch.linalg.vector_norm(b, dim=1))
        return solution.x, solution.iterations

    def at(self, point: Z) -> System:
        """The same system, M taken at another point."""
        return System(
            point, self.equation, self.solver, self.tol, "ignore", Certificate(), self.direct
        )

    def resolve(self, b: Tensor) -> Tensor:
        """M*^-1 b, judged by nobody."""
        return self._solve(b, True, torch.linalg.vector_norm(b, dim=1)).x

    def pull(self, point: Z, w: Tensor, parameters: Sequence[Tensor]) -> Tensor:
        """-(d residual / d parameters)* w at a point: the gradient that the adjoint w gives."""
        with torch.enable_grad():
            residual = self.equation(point)
        pairs = zip(residual, self.split(w), strict=True)
        linked = [(part, -u) for part, u in pairs if part.requires_grad]
        outputs, cotangents = (tuple(parts) for parts in zip(*linked, strict=True))
        grads = _vjp(outputs, tuple(parameters), cotangents)
        return torch.cat([g.flatten() for g in grads])

    def _solve(
        self, b: Tensor, transposed: bool, scale: Tensor, start: Tensor | None = None
    ) -> LinearSolution:
        if start is not None:
            product = self.transposed_product if transposed else self.product
            solution = self._solve(b - product(start), transposed, scale)
            return replace(solution, x=start + solution.x)
        product = self.transposed_product if transposed else self.product
        if self.direct is not None:
            if self._direct is None:
                self._direct = self.direct(self.z)
            return self._solve_directly(self._direct, product, b, transposed, scale)
        if self.solver is not None and not isinstance(self.solver, Dense):
            return self.solver(product, b, tol=self.tol, scale=scale)
        first = self._steps(product, b, scale)
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

    def _steps(self, product: Product, b: Tensor, scale: Tensor) -> LinearSolution:
        """x + (b - M x), while that promises to end within as many products as it is worth: M = I
        where T is a Newton step, and M ~ I where T contracts. No Krylov method beats it where the
        spectrum of dT/dz fills a disc, and none costs as little beside its products."""
        worth = 10 if b.shape[1] <= DENSE else 100  # fewer where M may be written out
        goal = self.tol * scale
        x, rest, products = b, b - product(b), 1
        left, before = torch.linalg.vector_norm(rest, dim=1), torch.linalg.vector_norm(b, dim=1)
        while products <= worth:
            going = (left > goal) & (left * (left / before) ** worth <= goal)
            if not bool(going.any()):
                break
            x = x + rest if bool(going.all()) else torch.where(going[:, None], x + rest, x)
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
            if not self._hessian(b) or bool((solution.residual <= self.accepted).all()):
                return solution
        matrix = self.matrix().mT if transposed else self.matrix()
        written_out = partial(torch.einsum, "bij,bj->bi", matrix)
        return self._measured(written_out, b, pseudo_solve(matrix, b), scale, b.shape[1])

    def _solve_directly(
        self,
        inverse: Callable[[Z, bool], Z],
        product: Product,
        b: Tensor,
        transposed: bool,
        scale: Tensor,
    ) -> LinearSolution:
        """One solve, and one of the residual that an ill-conditioned system leaves."""
        first = self.flatten(inverse(self.split(b), transposed))
        solution = self._measured(product, b, first, scale, 1)
        if bool(solution.converged.all()):
            return solution
        rest = self.flatten(inverse(self.split(b - product(first)), transposed))
        return self._measured(product, b, first + rest, scale, 2)

    def _measured(
        self, product: Product, b: Tensor, x: Tensor, scale: Tensor, count: int
    ) -> LinearSolution:
        residual = torch.linalg.vector_norm(b - product(x), dim=1) / scale.clamp_min(tiny(b))
        return LinearSolution(x, residual, count, residual <= 1.5 * self.tol)

    def _hessian(self, b: Tensor) -> bool:
        """Whether M is that of a smooth energy, and not too large to be written out."""
        return self.energy is not None and b.shape[1] <= _SMALL

    def _krylov(self, product: Product, b: Tensor, start: Tensor, scale: Tensor) -> LinearSolution:
        """GMRES up to a thousand unknowns, for a Hessian CG; else short recurrences, and GMRES from
        where they stall."""
        size = b.shape[1]
        if size <= _SMALL and self.energy is None:
            return GMRES()(product, b, tol=self.tol, start=start, scale=scale)
        short = BiCGStab() if self.energy is None else CG(max_iter=min(2 * size, 1000))
        solution = short(product, b, tol=self.tol, start=start, scale=scale)
        if self._hessian(b) or bool(solution.converged.all()):
            return solution
        basis = 1000 if size <= _MEDIUM else 100
        return GMRES(basis=basis)(product, b, tol=self.tol, start=solution.x, scale=scale)

    def matrix(self) -> Tensor:
        """M written out, (B, N, N)."""
        if self._matrix is None:
            n = sum(shape[1:].numel() for shape in self.shapes)
            eye = torch.eye(n, dtype=self.z[0].dtype, device=self.z[0].device)
            rows = eye[:, None].expand(n, self.shapes[0][0], n)
            try:
                self._matrix = self._rows(rows).transpose(0, 1)
            except RuntimeError:  # some operations, sparse products say, have no batched backward
                self._matrix = torch.stack([self.transposed_product(row) for row in rows], 1)
        return self._matrix

    def _rows(self, rows: Tensor) -> Tensor:  # (n, B, N) -> (n, B, N)
        """M* applied to many vectors at once."""
        parts = zip(*(self.split(row) for row in rows), strict=True)
        grads = torch.autograd.grad(
            self.residual,
            self.z,
            [torch.stack(p) for p in parts],
            retain_graph=True,
            allow_unused=True,
            is_grads_batched=True,
        )
        flat = [
            torch.zeros((len(rows), *z.shape), dtype=z.dtype, device=z.device) if g is None else g
            for g, z in zip(grads, self.z, strict=True)
        ]
        return torch.cat([g.flatten(2) for g in flat], 2)

    def _judge(self, solution: LinearSolution, quiet: Tensor, b: Tensor, transposed: bool) -> None:
        """Write the certificate; raise or warn for an adjoint that was not solved."""
        if transposed:
            previous = self.certificate.adjoint_residual
            residual = torch.where(quiet, 0.0, solution.residual)
            self.certificate.adjoint_residual = (
                residual if previous is None else torch.maximum(residual, previous)
            )
            self.certificate.adjoint_iterations = max(
                self.certificate.adjoint_iterations or 0, solution.iterations
            )
            self.certificate.update_estimate()
        failed = ~(solution.residual <= self.accepted) & ~quiet
        if (self.solver is not None and not self.solver.exact) or not bool(failed.any()):
            return
        worst = float(solution.residual[failed].max())
        if self._inconsistent(solution, failed, b, transposed):
            fail(
                NotUnique(
                    f"the adjoint system has no solution ({int(failed.sum())} of {len(b)} samples, "
                    f"relative residual {worst:.1e}, none of it reachable): the loss reads a part "
                    "of the solution that the problem does not determine (a dual, or an x that is "
                    "not unique). Add a strongly convex term."
                ),
                self.on_fail,
            )
            return
        fail(
            NotConverged(
                f"the adjoint solve ended at a relative residual of {worst:.1e}, asked was "
                f"{self.tol:.0e} ({int(failed.sum())} of {len(b)} samples, {solution.iterations} "
                "products). Solve the problem more accurately, raise max_iter of the linear "
                "solver, or accept it with on_fail='warn'."
            ),
            self.on_fail,
        )

    def _inconsistent(
        self, solution: LinearSolution, failed: Tensor, b: Tensor, transposed: bool
    ) -> bool:
        """Whether what is left of b is nearly orthogonal to the range: no solver can reduce it."""
        product, adjoint = self.transposed_product, self.product
        if not transposed:
            product, adjoint = adjoint, product
        x = solution.x
        if isinstance(
            self.solver, CG | BiCGStab | Series
        ):  # they do not lessen what is left step by step
            x = GMRES(max_iter=300)(product, b, tol=self.tol).x
        left = b - product(x)
        size = torch.linalg.vector_norm(left, dim=1)
        reachable = torch.linalg.vector_norm(adjoint(left), dim=1)
        return bool((reachable <= 1e-3 * size)[failed & (solution.residual > 1e-6)].any())


def _vjp(outputs: Z, inputs: Z, cotangents: Z, create_graph: bool = False) -> Z:
    grads = torch.autograd.grad(
        outputs, inputs, cotangents, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    return tuple(
        torch.zeros_like(z) if g is None else g for z, g in zip(inputs, grads, strict=True)
    )
