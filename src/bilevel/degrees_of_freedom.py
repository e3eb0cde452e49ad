"""How many parameters does a solution fit to its data?"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

from torch import Tensor

from ._tangents import constant
from .differentiation.active import Active
from .differentiation.tangent import Spanned
from .terms.base import Smooth, Term
from .terms.composition import Composition, SmoothComposition
from .terms.smooth import LeastSquares

if TYPE_CHECKING:
    from .problem import Problem

Z = tuple[Tensor, ...]


def degrees_of_freedom(problem: Problem, x: Tensor, y: Z) -> Tensor:  # -> (B,)
    """tr d(Ax)/db = tr P_T H_M^+ P_T A*WA of the data terms 1/2 |Ax - b|_W^2, those `LeastSquares`
    whose target is a tensor; for an accurate (x, y).

    T is the tangent space of the active manifold M, H_M the energy's second derivative along M, its
    curvature included. Where M is flat and no other term bends, that is the dimension of A T: the
    nonzeros of a lasso whose active columns are independent, the flat zones of anisotropic total
    variation, the kernel of the rows that D x holds at 0 for |Dx|_1. Dense, for at most 512
    coordinates that can move.
    """
    with constant():
        data = [t for t in map(_smooth, problem.terms) if isinstance(t, Smooth) and _measures(t)]
        if not data:
            raise ValueError(
                "degrees of freedom are counted for LeastSquares(b) @ A, b a tensor, got "
                f"{' + '.join(type(term).__name__ for term in problem.terms)}. For other models "
                "sure(...) estimates the trace."
            )
        tangent = Active(problem, (x, *y)).tangent
        if not isinstance(tangent, Spanned):
            raise ValueError(
                "degrees of freedom are counted by dense algebra, for at most 512 coordinates that "
                f"can move; x has shape {tuple(x.shape)}. sure(..., step=0) estimates the trace."
            )

        def bent(v: Tensor) -> Tensor:
            return reduce(Tensor.add, [term.grad(v) - term.grad(0 * v) for term in data])

        return tangent.trace(bent)


def _smooth(term: Term) -> Term:
    """F(Kx), if that is handled by the prox of F."""
    dualized = isinstance(term, Composition) and isinstance(term.outer, LeastSquares)
    return SmoothComposition(term.outer, term.operator) if dualized else term  # type: ignore[union-attr]


def _measures(term: Smooth) -> bool:
    outer = term.outer if isinstance(term, SmoothComposition) else term
    return isinstance(outer, LeastSquares) and isinstance(outer.target, Tensor)
