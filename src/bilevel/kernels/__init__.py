"""Compiled implementations of some T, found by the problem's shape.

The rest of the library does not know which runs. The reference is always the solver's own step in
torch operations, and that is what is recorded for gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..problem import Problem
    from ..solvers.base import Solver, Z
    from .rof import ROF


def find(problem: Problem, solver: Solver, z: Z) -> ROF | None:
    """The kernel that covers this problem and solver, None if there is none."""
    from .rof import ROF

    return ROF.of(problem, solver, z)
