"""min over x of f(x) + g(x) + sum_i h_i(K_i x): a sum of terms, sorted by what they can do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial, reduce
from typing import Any

import torch
from torch import Tensor

from ._broadcast import expand, like, norm_event
from ._remembered import Remembered
from ._tangents import differentiates, traced
from .operators.base import Identity
from .terms.base import Composed, Dualizable, Proximable, Smooth, Term
from .terms.composition import Composition, SmoothComposition, SmoothSum
from .terms.linear import Linear


@lru_cache
def role_of(kind: type[Term]) -> type[Smooth | Proximable | Composed] | None:
    """What a solver takes a term of this kind for: the first that it is. None: it can use none."""
    return next((role for role in (Smooth, Proximable, Composed) if issubclass(kind, role)), None)


@dataclass(frozen=True, eq=False)
class Problem:
    """A sum of terms. `f` collects the smooth ones, `g` is the first proximable one, `h` the
    composed ones.

    A second proximable term becomes h(Identity x). A term that is smooth and proximable counts as
    smooth; a solver that wants its prox takes it where it stands alone (PrimalDual does).
    """

    terms: tuple[Term, ...]

    def __add__(self, other: Term | Problem) -> Problem:
        if isinstance(other, Problem):
            return Problem(self.terms + other.terms)
        if isinstance(other, Term):
            return Problem((*self.terms, other))
        got = f"the class {other.__name__}" if isinstance(other, type) else type(other).__name__
        raise TypeError(
            f"only terms can be added to an energy, got {got}. A number does not change the "
            "minimiser: leave it out. A class wants its parentheses, L1(); a function of x is "
            "wrapped as Potential(function)."
        )

    def __radd__(self, other: object) -> Problem:
        zero = isinstance(other, int) and other == 0  # sum(terms) starts there
        return self if zero else self + other  # type: ignore[operator]

    def __rmul__(self, weight: Tensor | float) -> Problem:
        return Problem(tuple(weight * term for term in self.terms))

    __mul__ = __rmul__

    @cached_property
    def f(self) -> Smooth | None:
        smooth = self._which(Smooth)
        return None if not smooth else smooth[0] if len(smooth) == 1 else SmoothSum(smooth)

    @cached_property
    def _proximable(self) -> tuple[Proximable, ...]:
        return self._which(Proximable)

    def _which(self, role: type) -> tuple[Any, ...]:
        return tuple(t for t in self.terms if role_of(type(t)) is role)

    @cached_property
    def g(self) -> Proximable | None:
        return self._proximable[0] if self._proximable else None

    @cached_property
    def h(self) -> tuple[Composed, ...]:
        further = tuple(Composition(t, Identity()) for t in self._proximable[1:])
        return self._which(Composed) + further

    def dualized(self) -> Problem:
        """The same energy, whose smooth F(Kx) are composed terms where the prox of F is known.

        PrimalDual then takes that prox on a dual of its own in place of the gradient K* F'(Kx),
        whose Lipschitz constant no longer limits its steps: with total variation, for a blur or a
        part of x, some 2 to 4 times fewer steps.
        """
        smooth = [t for t in self.terms if isinstance(t, SmoothComposition)]
        moved = [t for t in smooth if isinstance(t.outer, Proximable)]
        rest = [t for t in self.terms if t not in moved]
        composed = (Composition(t.outer, t.operator) for t in moved)  # type: ignore[arg-type]
        return Problem((*rest, *composed))

    def value(self, x: Tensor) -> Tensor:  # (B, *event) -> (B,)
        return reduce(Tensor.add, [t.value(x) for t in self.terms])

    def guess(self) -> Tensor | None:
        """A starting point from the data, if a term knows the shape of x."""
        guesses = (t.guess() for t in self.terms)
        return next((guess for guess in guesses if guess is not None), None)

    def take(self, index: Tensor, x: Tensor) -> Problem | None:
        """The problem of the samples `index` of the batch x; None if a term cannot be indexed."""
        taken = [t.take(index, x) for t in self.terms]
        return None if None in taken else Problem(tuple(taken))  # type: ignore[arg-type]

    def pull(self, x: Tensor, y: Sequence[Tensor]) -> Tensor:
        """sum K_i* y_i, of the shape of x; a primal-dual step and the gap at its end ask for the
        same."""
        return self._pulled(*y) if y else torch.zeros_like(x)

    @cached_property
    def _pulled(self) -> Remembered[Tensor]:
        return Remembered(partial(_pull, self.h))

    def slope(self, x: Tensor, y: tuple[Tensor, ...]) -> Tensor:
        """grad f(x) + sum K_i* y_i."""
        pull = self.pull(x, y)
        return pull if self.f is None else pull + self.f.grad(x)

    def kkt(self, x: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The optimality conditions as an equation, zero at the solution, for unit steps:

        x - prox_g(x - grad f(x) - sum K_i* y_i),   y_i - prox_{h_i*}(y_i + K_i x).
        """
        slope = self.slope(x, y)
        primal = slope if self.g is None else x - self.g.prox(x - slope, 1.0)
        duals = (
            y_i - h.outer.prox_conjugate(y_i + h.operator(x), 1.0)
            for h, y_i in zip(self.h, y, strict=True)
        )
        return (primal, *duals)

    @cached_property
    def has_gap(self) -> bool:
        return self._split is not None and all(isinstance(h.outer, Dualizable) for h in self.h)

    @cached_property
    def _split(self) -> tuple[Dualizable, tuple[SmoothComposition, ...]] | None:
        """(base, parts): the energy is base(x) + sum parts(x) + sum h_i(K_i x), every conjugate
        known. Else None."""
        smooth = list(self._which(Smooth))
        if self.g is not None:  # a linear term moves its conjugate
            smooth = [t @ Identity() if isinstance(t, Linear) else t for t in smooth]
        parts = tuple(t for t in smooth if isinstance(t, SmoothComposition))
        bases = [t for t in smooth if not isinstance(t, SmoothComposition)] + (
            [self.g] if self.g else []
        )
        if len(bases) != 1 or not isinstance(bases[0], Dualizable):
            return None
        return (bases[0], parts) if all(isinstance(p.outer, Dualizable) for p in parts) else None

    def gap(
        self, x: Tensor, y: tuple[Tensor, ...], floor: Tensor | float = 0.0
    ) -> Tensor | None:  # -> (B,)
        """(P - D) / max(|P|, |D|, floor) at x and the duals y of the h_i; None if there is no gap.

        The dual of a smooth part F(Ax) is grad F(Ax); all duals are scaled into the domain of the
        base's conjugate.
        """
        if not self.has_gap:
            return None
        primal, dual = self._values(x, y)
        size = torch.maximum(primal.abs(), dual.abs()).clamp_min(torch.finfo(x.dtype).tiny)
        return (primal - dual) / torch.maximum(size, like(floor, size))

    def distance(self, x: Tensor, y: tuple[Tensor, ...]) -> Tensor | None:  # -> (B,)
        """|x - x*| <= sqrt(2 (P - D) / mu): a bound, up to rounding, where there is a gap and the
        terms know that the energy is mu-strongly convex; else None."""
        mu = torch.as_tensor(sum(t.strong_convexity(x) for t in self.terms)).to(x)
        if not self.has_gap or not bool((mu > 0).all()):
            return None
        primal, dual = self._values(x, y)
        return (2 * (primal - dual).clamp_min(0.0) / mu).sqrt()

    def _values(self, x: Tensor, y: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:  # both (B,)
        """P and D at x and the duals y of the h_i, which are scaled to be feasible."""
        assert self._split is not None
        base, parts = self._split
        outers = [part.outer for part in (*parts, *self.h)]
        images = [part.operator(x) for part in (*parts, *self.h)]
        duals = [part.outer.grad(image) for part, image in zip(parts, images, strict=False)]
        pulls = [part.operator.adjoint(d) for part, d in zip(parts, duals, strict=True)]
        duals, pulls = [*duals, *y], [self.pull(x, y), *pulls] if y else pulls
        pull = -reduce(Tensor.add, pulls) if pulls else torch.zeros_like(x)
        scale = base.dual_scale(pull)
        if bool((scale < 1).any()):
            pull, duals = pull * expand(scale, pull), [d * expand(scale, d) for d in duals]
        dual = -base.conjugate(pull)
        for outer, d in zip(outers, duals, strict=True):
            dual = dual - outer.conjugate(d)  # type: ignore[attr-defined]
        values = [outer.value(image) for outer, image in zip(outers, images, strict=True)]
        return reduce(Tensor.add, values, base.value(x)), dual


def _pull(h: tuple[Composed, ...], *y: Tensor) -> Tensor:
    total = h[0].pull(y[0])
    rest = list(zip(h[1:], y[1:], strict=True))
    if differentiates() or traced():
        return reduce(Tensor.add, [h_i.pull(y_i) for h_i, y_i in rest], total)
    total = total.clone() if rest else total  # it may be y itself
    for h_i, y_i in rest:
        h_i.add_pull(y_i, total)
    return total


def relative_change(
    z: tuple[Tensor, ...], t: tuple[Tensor, ...], floor: Tensor | float = 0.0
) -> Tensor:  # -> (B,)
    """max over the parts of |z_i - t_i| / |t_i|, a part much smaller than the whole, or than the
    floor (B,), counted against that.
    """
    sizes = [norm_event(part) for part in t]
    tiny = torch.finfo(t[0].dtype).tiny
    least = floor.clamp_min(tiny) if isinstance(floor, Tensor) else max(floor, tiny)
    if len(t) > 1:
        least = torch.maximum(like(least, sizes[0]), 1e-3 * reduce(torch.maximum, sizes))
    changes = [
        norm_event(a - b) / size.clamp_min(least)  # type: ignore[arg-type]
        for a, b, size in zip(z, t, sizes, strict=True)
    ]
    return reduce(torch.maximum, changes)
