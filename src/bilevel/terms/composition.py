"""term @ operator, and the sum of smooth terms."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from torch import Tensor

from .._broadcast import Scalar, like
from ..operators.base import Operator
from .base import Composed, Proximable, Smooth, Term


def compose(term: Term, operator: Operator) -> Term:
    """term(operator(x)), of the type that keeps what the term can do."""
    if not isinstance(operator, Operator):
        raise TypeError(
            f"{type(term).__name__} @ {type(operator).__name__}: an operator is needed on the "
            "right. Wrap a matrix as Matrix(A); terms are added."
        )
    if isinstance(term, SmoothComposition):
        return replace(term, operator=term.operator @ operator)
    if isinstance(term, Composition):
        return replace(term, operator=term.operator @ operator)
    if isinstance(term, Composed):
        return Composition(term.outer, term.operator @ operator)
    if isinstance(term, Smooth):
        return SmoothComposition(term, operator)
    if isinstance(term, Proximable):
        return Composition(term, operator)
    raise TypeError(
        f"{type(term).__name__} can be composed with an operator only if it is Smooth or "
        "Proximable."
    )


def named(term: object) -> str:
    """How the user wrote it: 'LeastSquares @ Matrix', for messages."""
    if isinstance(term, SmoothComposition | Composition):
        return f"{named(term.outer)} @ {type(term.operator).__name__}"
    return type(term).__name__


def _take(term: Any, index: Tensor, x: Tensor) -> Any:
    outer, operator = term.outer.take(index, term.operator(x)), term.operator.take(index, x)
    return (
        None if outer is None or operator is None else replace(term, outer=outer, operator=operator)
    )


def _pulled(data: Tensor | None, operator: Operator) -> Tensor | None:
    """A start 0 of the shape that the operator takes to that of the data."""
    return None if data is None else operator.origin(data)


@dataclass(frozen=True, eq=False)
class SmoothComposition(Smooth):
    """f(Kx) with f smooth: the gradient is K* grad f(Kx), its Lipschitz constant L |K|^2,
    that of the Hessian L_2 |K|^3."""

    outer: Smooth
    operator: Operator

    def value(self, x: Tensor) -> Tensor:
        return self.outer.value(self.operator(x))

    def grad(self, x: Tensor) -> Tensor:
        return self.operator.adjoint(self.outer.grad(self.operator(x)))

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, slope = self.outer.value_and_grad(self.operator(x))
        return value, self.operator.adjoint(slope)

    def lipschitz(self, x: Tensor) -> Scalar | None:
        outer = self.outer.lipschitz(self.operator(x))
        return None if outer is None else outer * self.operator.norm(x) ** 2

    def hessian_lipschitz(self, x: Tensor) -> Scalar | None:
        outer = self.outer.hessian_lipschitz(self.operator(x))
        return None if outer is None else outer * self.operator.norm(x) ** 3

    def strong_convexity(self, x: Tensor) -> Scalar:
        """Only weak convexity passes: K may have a kernel."""
        mu = like(self.outer.strong_convexity(self.operator(x)), x).clamp(max=0)
        return mu * self.operator.norm(x) ** 2 if bool((mu < 0).any()) else 0.0

    @property
    def lipschitz_known(self) -> bool:
        return self.outer.lipschitz_known

    @property
    def quadratic(self) -> bool:
        return self.outer.quadratic

    @property
    def potential(self) -> bool:
        return self.outer.potential

    def guess(self) -> Tensor | None:
        return _pulled(self.outer.guess(), self.operator)

    def take(self, index: Tensor, x: Tensor) -> SmoothComposition | None:
        return _take(self, index, x)

    def __rmul__(self, weight: Tensor | float) -> SmoothComposition:
        return replace(self, outer=weight * self.outer)


@dataclass(frozen=True, eq=False)
class Composition(Composed):
    """h(Kx) with prox of h known."""

    outer: Proximable
    operator: Operator

    def guess(self) -> Tensor | None:
        return _pulled(self.outer.guess(), self.operator)

    def take(self, index: Tensor, x: Tensor) -> Composition | None:
        return _take(self, index, x)

    def __rmul__(self, weight: Tensor | float) -> Composition:
        return replace(self, outer=weight * self.outer)


@dataclass(frozen=True, eq=False)
class SmoothSum(Smooth):
    """f_1(x) + f_2(x) + ..., all smooth."""

    terms: tuple[Smooth, ...]

    def value(self, x: Tensor) -> Tensor:
        return reduce(Tensor.add, [t.value(x) for t in self.terms])

    def grad(self, x: Tensor) -> Tensor:
        return reduce(Tensor.add, [t.grad(x) for t in self.terms])

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        values, slopes = zip(*(t.value_and_grad(x) for t in self.terms), strict=True)
        return reduce(Tensor.add, values), reduce(Tensor.add, slopes)

    def lipschitz(self, x: Tensor) -> Scalar | None:
        constants = [t.lipschitz(x) for t in self.terms]
        return None if None in constants else sum(constants)  # type: ignore[arg-type]

    def hessian_lipschitz(self, x: Tensor) -> Scalar | None:
        constants = [t.hessian_lipschitz(x) for t in self.terms]
        return None if None in constants else sum(constants)  # type: ignore[arg-type]

    def strong_convexity(self, x: Tensor) -> Scalar:
        return sum(t.strong_convexity(x) for t in self.terms)

    @property
    def lipschitz_known(self) -> bool:
        return all(t.lipschitz_known for t in self.terms)

    @property
    def quadratic(self) -> bool:
        return all(t.quadratic for t in self.terms)

    @property
    def potential(self) -> bool:
        return all(t.potential for t in self.terms)

    def take(self, index: Tensor, x: Tensor) -> SmoothSum | None:
        taken = [t.take(index, x) for t in self.terms]
        return None if None in taken else SmoothSum(tuple(taken))  # type: ignore[arg-type]
