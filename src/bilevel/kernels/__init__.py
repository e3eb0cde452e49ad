"""Compiled kernels: each an implementation of some prox, or of some T, admitted by the test that
compares it with its torch reference, which is also what is recorded for gradients.

Nothing here is compiled by `import bilevel`: a term asks for its kernel when it is first used, and
a fixed point finds the one that covers its problem and solver, if there is one.
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
