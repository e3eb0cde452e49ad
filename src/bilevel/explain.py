"""explain: which theorem stands behind a gradient, and whether its assumptions hold here."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ._tangents import constant
from .argmin import prepared
from .checks import Options
from .choice import default_strategy
from .differentiation.assumptions import Finding, Solved
from .differentiation.base import Strategy
from .differentiation.theorems import Theorem, covering
from .problem import Problem
from .solvers.base import Solver
from .terms.base import Term


@dataclass(frozen=True, eq=False)
class Explanation:
    """What is known of the derivative of one solution; print it."""

    solver: str
    strategy: str
    theorem: Theorem | None  # the first in the table whose assumptions hold here
    findings: tuple[Finding, ...]  # of all assumptions of the theorems about this strategy
    memory: str
    steps: str
    instead: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"{self.strategy} of {self.solver}"]
        if self.theorem is None:
            lines.append("covered by no theorem of the table: an assumption fails or is unknown")
        else:
            lines += [
                f"covered by: {self.theorem.name} ({self.theorem.source})",
                f"  {self.theorem.says}",
            ]
        lines += [f"  {finding}" for finding in self.findings]
        lines += [f"memory: {self.memory}", f"steps: {self.steps}"]
        return "\n".join(lines + [f"instead: {advice}" for advice in self.instead])


def explain(
    energy: Problem | Term,
    solver: Solver | None = None,
    strategy: Strategy | None = None,
    *,
    x0: Tensor | None = None,
    tol: float | None = None,
    max_iter: int = 20_000,
) -> Explanation:
    """Solves the energy once and says what is known of the derivative there: the theorem that
    covers the pair of solver and strategy, its assumptions and how they came out here, the cost,
    and what to try where one fails.

    The checks are made at this one solution, for the worst sample of the batch; those of kinks try
    random directions. Up to 160 unknowns a sample M is written out, beyond that less is known.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[2.0, 1.0, -0.3]], dtype=torch.float64)
    >>> told = bl.explain(bl.LeastSquares(y) + 1.0 * bl.L1())  # the second entry is at its kink
    >>> told.theorem.name
    'Conservative Jacobian'
    """
    with constant():
        options = Options(
            solver=solver, diff=strategy, tol=tol, max_iter=max_iter, on_fail="ignore"
        )
        task = prepared(energy, x0, options)
        if not len(task.z0[0]):
            raise ValueError("explain needs a problem to solve, got an empty batch.")
        z = task.run(task.fixpoint, task.z0)
        fixpoint = task.fixpoint.near(z)
    x, run = fixpoint.primal(z), task.run
    chosen = strategy or default_strategy(fixpoint.problem, fixpoint.solver, x, run.adjoint_tol)
    at = Solved(fixpoint, z, chosen, run.acceleration, run.tol, run.certificate)
    theorems = covering(chosen)
    questions = dict.fromkeys(question for t in theorems for question in t.assumes)
    findings = {question: question(at) for question in questions}
    holding = [t for t in theorems if all(findings[question].holds for question in t.assumes)]
    theorem = holding[0] if holding else None
    failed = [found for found in findings.values() if found.holds is False]
    wanting = failed or [found for found in findings.values() if found.holds is None]
    return Explanation(
        run.certificate.solver,
        repr(chosen),
        theorem,
        tuple(findings.values()),
        _memory(at, theorems),
        _steps(at, theorems),
        tuple(f.instead for f in wanting) if theorem is None or theorem.weak else (),
    )


def _memory(at: Solved, theorems: tuple[Theorem, ...]) -> str:
    size = sum(part.numel() * part.element_size() for part in at.z)
    what = theorems[0].memory if theorems else "not in the table"
    return f"{what}; one z is {size / 2**20:.3g} MiB"


def _steps(at: Solved, theorems: tuple[Theorem, ...]) -> str:
    made = int(at.certificate.iterations.max())  # type: ignore[union-attr]
    what = theorems[0].steps if theorems else "not in the table"
    return f"{made} forward; backward {what}"
