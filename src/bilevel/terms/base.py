"""What a term can do, as types: Smooth, Proximable, Dualizable, Composed.

A term knows nothing of solvers. `weight * term` multiplies its weight, `term @ operator` composes,
`term + term` is a Problem.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, is_dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from .._broadcast import Scalar, axpy, carries_batch, expand, sum_event
from .._tangents import detached
from .manifolds import Manifold
from .of_prox import of_prox, of_separable_prox

if TYPE_CHECKING:
    from ..operators.base import Operator
    from ..problem import Problem


class Term(ABC):
    """A function of x with one value a sample."""

    __array_ufunc__ = None  # numpy_scalar * term must reach __rmul__

    batched: ClassVar[
        tuple[str, ...]
    ] = ()  # fields that broadcast against x: at x's rank they carry the batch

    @abstractmethod
    def value(self, x: Tensor) -> Tensor:  # (B, *event) -> (B,)
        """The function's value for each sample."""

    def guess(self) -> Tensor | None:
        """A starting point of the shape of x, if the term knows that shape."""
        return None

    def strong_convexity(self, x: Tensor) -> Scalar:  # a number, or (B,)
        """A constant mu with value - mu/2 |x|^2 convex; 0 where none is known.

        Negative for a weakly convex term, whose prox is continuous for steps below 1 / -mu; -inf
        for one that is not even that.
        """
        return 0.0

    def check(self, x: Tensor) -> None:  # noqa: B027  (nothing to check is the rule)
        """Raise ValueError where a field does not suit an x of this shape; called once, before
        iterating."""

    def take(self, index: Tensor, x: Tensor) -> Self | None:
        """The same term for the samples `index` of a batch shaped like x; None if it cannot be
        indexed."""
        taken = {
            n: getattr(self, n)[index] for n in self.batched if carries_batch(getattr(self, n), x)
        }
        return replace(self, **taken) if taken else self  # type: ignore[type-var]

    def __rmul__(self, weight: Tensor | float) -> Self:
        if not isinstance(weight, Tensor | Real):
            raise TypeError(
                f"the weight of {type(self).__name__} must be a number or a tensor, got "
                f"{type(weight).__name__}. An array becomes a tensor by torch.as_tensor(weight); "
                "terms are added, and composed with operators by @."
            )
        if not is_dataclass(self) or "weight" not in {f.name for f in fields(self)}:
            raise TypeError(
                f"{type(self).__name__} has no weight to multiply by {weight!r}: in a constraint "
                "it plays no part. Leave it out, or use a penalty such as L1() or LeastSquares()."
            )
        return replace(self, weight=weight * self.weight)  # type: ignore[attr-defined, type-var]

    __mul__ = __rmul__

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        """tensor * term, without the error that torch would raise first: 20 microseconds."""
        product = function is Tensor.mul and isinstance(args[1], Term)
        return args[1].__rmul__(args[0]) if product else NotImplemented

    def __add__(self, other: Term | Problem) -> Problem:
        from ..problem import Problem

        return Problem((self,)) + other

    def __radd__(self, other: object) -> Problem:
        from ..problem import Problem

        return other + Problem((self,))  # type: ignore[operator]

    def __matmul__(self, operator: Operator) -> Term:
        from .composition import compose

        return compose(self, operator)


@dataclass(frozen=True, eq=False)
class Weighted(Term):
    """sum of weight * density(x). The weight broadcasts against the density.

    A scalar for all, `(B, 1, ...)` per sample, the density's own shape per pixel, 1-D per feature
    (last dim).
    """

    weight: Tensor | float = field(default=1.0, kw_only=True)  # >= 0

    batched: ClassVar[tuple[str, ...]] = ("weight",)

    @abstractmethod
    def density(self, x: Tensor) -> Tensor:  # (B, *event) -> (B, *density), of x's rank
        """What the weight multiplies, before the sum over the event."""

    def value(self, x: Tensor) -> Tensor:
        return sum_event(self.weight * self.density(x))


class Smooth(Term):
    """Differentiable with a Lipschitz gradient."""

    def grad(self, x: Tensor) -> Tensor:  # (B, *event) -> (B, *event)
        """The gradient of `value` in x; here by autograd, itself differentiable when grad mode is
        on."""
        record = torch.is_grad_enabled()
        with torch.enable_grad():
            point = x if record and x.requires_grad else detached(x).requires_grad_()
            value = self.value(point).sum()
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(
                    value, point, create_graph=record, allow_unused=True
                )
                if gradient is not None:
                    alone = record and not x.requires_grad and not _has_parameters(gradient, point)
                    return detached(gradient) if alone else gradient
        raise self._no_gradient()

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:  # (B,), (B, *event)
        """Both, with what they share worked out once where the term knows how."""
        return self.value(x), self.grad(x)

    def _no_gradient(self) -> Exception:
        if torch.is_inference_mode_enabled():
            return RuntimeError(
                f"the gradient of {type(self).__name__} is autograd's, which "
                "torch.inference_mode() switches off. Use torch.no_grad() instead."
            )
        return ValueError(
            f"the value of {type(self).__name__} does not depend on x through torch operations, so "
            "it has no gradient: is x detached, turned into an array, or not used?"
        )

    def lipschitz(self, x: Tensor) -> Scalar | None:  # a number, or (B,)
        """A Lipschitz constant of the gradient; None where it is not known."""
        return None

    @property
    def lipschitz_known(self) -> bool:
        """Whether `lipschitz` gives a constant, at no cost."""
        return type(self).lipschitz is not Smooth.lipschitz

    @property
    def quadratic(self) -> bool:
        """Whether the gradient is affine in x."""
        return False

    def hessian_lipschitz(self, x: Tensor) -> Scalar | None:  # a number, or (B,)
        """A Lipschitz constant of the Hessian; None where it is not known, or there is none."""
        return 0.0 if self.quadratic else None

    @property
    def potential(self) -> bool:
        """Whether `grad` is the gradient of `value`, as ever but for a VectorField."""
        return True


def _has_parameters(gradient: Tensor, point: Tensor) -> bool:
    """Whether the graph of a recorded gradient has a leaf besides the point it was taken at."""
    seen, front = set(), [gradient.grad_fn]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if getattr(node, "variable", point) is not point:
            return True
        front.extend(following for following, _ in node.next_functions)
    return False


class Proximable(Term):
    """prox(x, step) = argmin_u value(u) + |u - x|^2 / (2 step) is known."""

    tuned_by_step: ClassVar[bool] = False  # no value stands behind it: solutions depend on the step

    @abstractmethod
    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        """The proximal point; step > 0: a number, one a sample `(B,)`, or of x's shape where the
        term is separable."""

    def admissible(self, step: Tensor) -> Tensor:  # (1 or B, *event) -> broadcasts against x
        """The largest steps below the given ones, one a coordinate, that the prox can take.

        Here one a sample; separable terms take every step as it is.
        """
        return step.flatten(1).amin(1).reshape(-1, *[1] * (step.ndim - 1))

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        """prox of step * conjugate, by Moreau: y - step prox(y / step, 1 / step)."""
        s = expand(step, y)
        return y - s * self.prox(y / s, 1 / step)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        """The smooth set through x along which this term is smooth, for a subgradient `dual` at x.

        Here from the derivative of the prox at x + dual: of separable terms one backward pass, of
        others one a coordinate. The distance to a kink is not known then.
        """
        w = x + dual
        find = of_separable_prox if self.admissible(w) is w else of_prox
        return find(self, w)


class Dualizable(Term):
    """The convex conjugate's value is known, so duality gaps can be computed."""

    @abstractmethod
    def conjugate(self, y: Tensor) -> Tensor:  # (B, *event) -> (B,)
        """sup_x <x, y> - value(x), inf outside its domain. A y inside up to rounding counts as
        inside."""

    def dual_scale(self, y: Tensor) -> Tensor:  # (B, *event) -> (B,)
        """The largest s <= 1 for which s y lies in the conjugate's domain, where that domain is
        star-shaped."""
        return y.real.new_ones(len(y))


class Composed(Term):
    """outer(operator(x)), for the solvers that need only the outer prox."""

    outer: Proximable
    operator: Operator

    def value(self, x: Tensor) -> Tensor:
        return self.outer.value(self.operator(x))

    def rest(self, x: Tensor) -> Tensor:
        """The dual 0, of the shape of K x."""
        return self.operator.rest(x)

    def ascend(self, y: Tensor, x: Tensor, step: Scalar) -> Tensor:
        """prox_{step outer*}(y + step K x), what primal-dual methods do to the dual y."""
        return self.outer.prox_conjugate(axpy(step, self.operator(x), y), step)

    def pull(self, y: Tensor) -> Tensor:
        """K* y."""
        return self.operator.adjoint(y)

    def add_pull(self, y: Tensor, total: Tensor) -> None:
        """total += K* y, in place: where nothing is recorded."""
        self.operator.add_adjoint(y, total)
