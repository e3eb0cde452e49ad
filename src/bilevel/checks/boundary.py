"""The boundary of the library: an energy and a start go in, or an error that says what to do.

On the good path this costs one `aminmax` a tensor, one read-back for all of them, one product with
each operator, and one evaluation of the terms whose shapes are not known.
"""

from __future__ import annotations

from torch import Tensor

from .._broadcast import eps, like
from .._one_thread import copied
from ..problem import Problem, role_of
from ..terms.base import Term
from ..terms.composition import named
from ..terms.quadratic import Quadratic
from .fields import Field, check_kinds, check_values, fields_of
from .shapes import check_shapes


def boundary(energy: Problem | Term, x0: Tensor | None) -> tuple[Problem, Tensor]:
    """(problem, start of shape (B, *event)), or an error that says what to do; in no_grad mode."""
    problem = Problem(as_problem(energy).terms)  # what it keeps is of one run
    found = [field for term in problem.terms for field in fields_of(term)]
    given = [] if x0 is None else [Field(None, "x0", x0)]
    check_kinds(given + found)
    start = copied(_start(problem, found) if x0 is None else x0)  # it may be the answer
    if start.is_complex():
        raise TypeError(
            f"x would be complex ({start.dtype}), as the data are, but an unknown is real. Name "
            "the operator between x and the data, LeastSquares(data) @ FFT(), or solve for pairs "
            "of reals, LeastSquares(torch.view_as_real(data))."
        )
    if start.ndim < 2:
        raise ValueError(
            f"x0 has shape {tuple(start.shape)}: dim 0 must be the batch. "
            "For one problem pass x0[None]."
        )
    if not start.shape[1:].numel():
        raise ValueError(
            f"x has shape {tuple(start.shape)}: each sample is empty, there is nothing to minimise "
            "over. An empty batch, (0, *event), is allowed."
        )
    check_values(given + found, start.dtype)
    if len(start):
        for term in problem.terms:
            check_shapes(term, start, named(term))
        if len(problem.terms) == 1 and isinstance(problem.terms[0], Quadratic):
            _bounded(problem.terms[0], start)
    return problem, start


def _bounded(alone: Quadratic, x: Tensor) -> None:
    """An indefinite quadratic alone has a stationary point, which would pass for a solution."""
    least = like(alone.strong_convexity(x), x).min()
    if bool(least < -1e3 * eps(x) * like(alone.lipschitz(x), x).max()):
        raise ValueError(
            f"Quadratic alone has no minimiser: its least eigenvalue is {float(least):.3g}. Add "
            "terms that keep x bounded, Box(lower, upper) say, or a multiple of I to Q."
        )


def as_problem(energy: object) -> Problem:
    if isinstance(energy, Term):
        energy = Problem((energy,))
    if not isinstance(energy, Problem):
        raise TypeError(
            "an energy is a sum of terms, such as LeastSquares(y) + 0.1 * TotalVariation(), got "
            f"{type(energy).__name__}. Wrap a function of x as Potential(function)."
        )
    for term in energy.terms:
        if role_of(type(term)) is None:
            raise TypeError(
                f"{type(term).__name__} offers neither a gradient nor a prox, so no solver can use "
                "it. Let it inherit Smooth (the gradient is autograd's of value), or Proximable."
            )
    return energy


def _start(problem: Problem, found: list[Field]) -> Tensor:
    """A start from the data, which tell the shape of x."""
    try:
        guess = problem.guess()
    except RuntimeError as error:
        names = " + ".join(named(t) for t in problem.terms)
        raise ValueError(f"the data do not fit the operators of {names}: {error}.") from error
    if guess is not None:
        return guess
    for field in found:
        if field.name in getattr(field.owner, "batched", ()) and field.name != "weight":
            if isinstance(field.value, Tensor) and field.value.ndim == 1:
                raise ValueError(
                    f"{field} has shape {tuple(field.value.shape)}: dim 0 must be the batch. For "
                    f"one problem pass {field.name}[None]; for data that all samples share pass x0."
                )
    raise ValueError(
        f"the shape of x cannot be told from {' + '.join(named(t) for t in problem.terms)}. "
        "Pass x0 of shape (B, *event), torch.zeros(1, n) say."
    )
