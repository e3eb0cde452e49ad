"""Laws of solvers and of solutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .._broadcast import eps, norm_event
from ..argmin import solve
from ..checks import as_problem
from ..problem import Problem, relative_change
from ..solution import Solution
from ..solvers.base import Solver
from ..terms.base import Term
from .verdict import holds


def fixed_point(energy: Problem | Term, solution: Solution, tol: float = 1e-7) -> None:
    """z = T(z) at the answer: |z - T(z)| <= tol |z| for the z made of the solution's x and dual.

    A solve stops at a small duality gap: for a tight `tol` here, solve to a much smaller one.
    """
    problem = as_problem(energy)
    with torch.no_grad():
        z = solution.solver.assemble(problem, solution.x, solution.dual)
        floor = 1e-3 * norm_event(solution.x)  # z may be 0 where x is not
        residual = relative_change(z, solution.solver.step(problem, z), floor)
    holds("fixed_point", solution.solver, residual, tol)


def solvers_agree(
    energy: Problem | Term, solvers: Sequence[Solver], rtol: float = 1e-6, **options: Any
) -> None:
    """All solvers give the same x, to rtol |x|; for energies with one minimiser.

    options go to `solve`. An error of the energy's value delta moves x by sqrt(delta): ask for a
    tol of about rtol^2.
    """
    first, *others = [solve(energy, solver=solver, **options) for solver in solvers]
    for other in others:
        law = f"solvers_agree (with {type(first.solver).__name__})"
        off = norm_event(other.x - first.x)
        holds(law, other.solver, off, rtol * (norm_event(first.x) + norm_event(first.x).max()))


def batch_is_alone(
    energy: Callable[[Tensor], Problem | Term], size: int, ulp: float = 0.0, **options: Any
) -> None:
    """energy(index) is the problem of some samples: all `size` solved together are as each alone,
    in x, dual and number of iterations.

    ulp 0 asks for the same bits. Where a sample's arithmetic depends on the size of its batch
    (matrix products, long sums: other blocks, another order) allow a multiple of the rounding.
    """
    together = solve(energy(torch.arange(size)), **options)
    for i in range(size):
        alone = solve(energy(torch.tensor([i])), **options)
        here = [part[i : i + 1] for part in (together.x, *together.dual)]
        there = [alone.x, *alone.dual]
        off, scale = (
            torch.stack([norm_event(part) for part in parts]).norm(dim=0)
            for parts in ([a - b for a, b in zip(here, there, strict=True)], there)
        )
        law = f"batch_is_alone (sample {i})"
        holds(law, together.solver, off, ulp * eps(scale) * scale)
        steps = int(together.iterations[i]), int(alone.iterations[0])
        if steps[0] != steps[1]:
            raise AssertionError(
                f"{type(together.solver).__name__}: batch_is_alone is broken: sample {i} took "
                f"{steps[0]} steps in the batch and {steps[1]} alone."
            )
