"""Terms made of terms that keep their prox: under a tight frame, and side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, like, norm_event, smallest, sum_event
from ..operators.base import Operator
from .base import Proximable


def needs_prox(owner: str, term: object) -> None:
    if not isinstance(term, Proximable):
        raise TypeError(
            f"{owner} needs terms with a prox, got {type(term).__name__}. Terms without one, and "
            "composed ones, are added to the energy: f @ K."
        )


@dataclass(frozen=True, eq=False)
class Orthogonal(Proximable):
    """g(x) = term(Q x) with Q Q* = bound I: Q orthogonal (a rotation, an orthonormal transform), or
    with orthogonal rows.

    prox  x + Q* (prox of the term at Q x, step bound step - Q x) / bound (Combettes, Pesquet 2007)
    term @ Q would do without the condition, by PrimalDual; this has a prox.
    """

    term: Proximable
    operator: Operator
    bound: float = 1.0

    def __post_init__(self) -> None:
        needs_prox("Orthogonal", self.term)

    def check(self, x: Tensor) -> None:
        image = self.operator(x)
        generator = torch.Generator().manual_seed(0)
        y = torch.randn(image.shape, generator=generator, dtype=torch.float64).to(x)
        off = norm_event(self.operator(self.operator.adjoint(y)) - self.bound * y)
        worst = float((off / norm_event(self.bound * y)).max())
        if not worst <= 1e-3 + 64 * eps(x):  # room for finite differences
            raise ValueError(
                f"Orthogonal needs Q Q* = {self.bound:.6g} I, got an operator "
                f"{type(self.operator).__name__} that is off by {worst:.3g}, relative. Set bound, "
                "or write term @ operator, which PrimalDual() solves for any operator."
            )

    def value(self, x: Tensor) -> Tensor:
        return self.term.value(self.operator(x))

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        image = self.operator(x)
        moved = self.term.prox(image, step * self.bound) - image
        return x + self.operator.adjoint(moved) / self.bound

    def strong_convexity(self, x: Tensor) -> Scalar:
        """Only weak convexity passes: Q may have a kernel."""
        mu = self.term.strong_convexity(self.operator(x))
        return self.bound * (mu.clamp(max=0) if isinstance(mu, Tensor) else min(mu, 0.0))

    def take(self, index: Tensor, x: Tensor) -> Orthogonal | None:
        term = self.term.take(index, self.operator(x))
        operator = self.operator.take(index, x)
        if term is None or operator is None:
            return None
        return replace(self, term=term, operator=operator)

    def __rmul__(self, weight: Tensor | float) -> Orthogonal:
        return replace(self, term=weight * self.term)


@dataclass(frozen=True, eq=False)
class Anchored(Proximable):
    """g(x) = term(x) + strength/2 |x - target|^2.

    prox  of the term at (x + t target) / (1 + t), step / (1 + t), with t = step strength
    mu    the term's plus strength: a weakly convex term becomes convex
    As an energy it is term + strength LeastSquares(target); this has a prox, for Anchored(...) @ K.

    [1] Combettes, Pesquet. Proximal splitting methods in signal processing. 2011, table 10.1.
    """

    term: Proximable
    target: Tensor  # (B, *event), or broadcasts against x
    strength: Tensor | float = 1.0  # >= 0: a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("target", "strength")

    def __post_init__(self) -> None:
        needs_prox("Anchored", self.term)

    def value(self, x: Tensor) -> Tensor:
        return self.term.value(x) + sum_event(self.strength * (x - self.target).square()) / 2

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.strength
        return self.term.prox((x + t * self.target) / (1 + t), expand(step, x) / (1 + t))

    def strong_convexity(self, x: Tensor) -> Scalar:
        return self.term.strong_convexity(x) + smallest(self.strength, x)

    def take(self, index: Tensor, x: Tensor) -> Anchored | None:
        term, here = self.term.take(index, x), super().take(index, x)
        return None if term is None or here is None else replace(here, term=term)

    def __rmul__(self, weight: Tensor | float) -> Anchored:
        return replace(self, term=weight * self.term, strength=weight * self.strength)


@dataclass(frozen=True, eq=False)
class Separable(Proximable):
    """g(x) = term_1(x_1) + term_2(x_2) + ..., x_i consecutive parts of x along dim 1, of the given
    sizes (1 each by default): another term for each channel, block or component.

    prox  of each term on its part

    An infimal convolution of f and g in a data term D is D @ (u + v) + Separable(f, g), with u, v =
    Part(0, of=2), Part(1, of=2), in the unknown (x_1, x_2) of shape (B, 2, *event).
    """

    terms: tuple[Proximable, ...]
    sizes: tuple[int, ...]

    def __init__(self, *terms: Proximable, sizes: tuple[int, ...] | None = None) -> None:
        sizes = (1,) * len(terms) if sizes is None else tuple(sizes)
        for term in terms:
            needs_prox("Separable", term)
        if not terms or len(sizes) != len(terms) or min(sizes) < 1:
            raise ValueError(
                f"Separable needs a size >= 1 for each of its {len(terms)} terms, got sizes = "
                f"{sizes}. Write Separable(f, g, sizes=(3, 2))."
            )
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "sizes", sizes)

    def check(self, x: Tensor) -> None:
        if x.shape[1] != sum(self.sizes):
            raise ValueError(
                f"Separable has parts of sizes {self.sizes}, {sum(self.sizes)} together, at x of "
                f"shape {tuple(x.shape)}, with {x.shape[1]} along dim 1. Pass sizes=(...) that add "
                "up, or an x0 of that shape."
            )

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split(self.sizes, dim=1)

    def _each(self, do: Callable[[Any, Tensor], Any], x: Tensor) -> list[Any]:
        return [do(term, part) for term, part in zip(self.terms, self.parts(x), strict=True)]

    def value(self, x: Tensor) -> Tensor:
        return reduce(Tensor.add, self._each(lambda term, part: term.value(part), x))

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return torch.cat(self._each(lambda term, part: term.prox(part, step), x), dim=1)

    def strong_convexity(self, x: Tensor) -> Scalar:
        each = self._each(lambda term, part: term.strong_convexity(part), x)
        return reduce(torch.minimum, [like(mu, x) for mu in each])

    def take(self, index: Tensor, x: Tensor) -> Separable | None:
        taken = self._each(lambda term, part: term.take(index, part), x)
        return None if None in taken else Separable(*taken, sizes=self.sizes)

    def __rmul__(self, weight: Tensor | float) -> Separable:
        return Separable(*(weight * term for term in self.terms), sizes=self.sizes)
