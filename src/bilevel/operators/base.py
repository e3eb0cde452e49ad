"""Linear operators: apply, adjoint, norm, composition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import reduce
from numbers import Real
from typing import ClassVar, Self

import torch
from torch import Tensor

from .._broadcast import Scalar, carries_batch, eps, expand, inner, norm_event


class Operator(ABC):
    """A linear map K of each sample: (B, *domain) -> (B, *range)."""

    __array_ufunc__ = None  # numpy_scalar * operator must reach __rmul__

    batched: ClassVar[tuple[str, ...]] = ()  # fields that may hold one entry a sample

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:  # (B, *domain) -> (B, *range)
        """K x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:  # (B, *range) -> (B, *domain)
        """K* y: <K x, y> = <x, K* y>."""

    def rest(self, x: Tensor) -> Tensor:  # (B, *domain) -> (B, *range)
        """0 of the shape of K x, without a product where that shape is known."""
        return torch.zeros_like(self(x))

    def origin(self, y: Tensor) -> Tensor:  # (B, *range) -> (B, *domain)
        """0 of the shape of K* y, likewise."""
        return torch.zeros_like(self.adjoint(y))

    def add_adjoint(self, y: Tensor, total: Tensor) -> None:
        """total += K* y, in place: where nothing is recorded."""
        total += self.adjoint(y)

    def absolute(self) -> Operator:
        """The operator with the absolute values of K's entries, for diagonal preconditioning."""
        raise TypeError(
            f"{type(self).__name__} does not tell the absolute values of its entries, which "
            "diagonal "
            "preconditioning needs. Use PrimalDual() without preconditioned=True."
        )

    def norm(self, x: Tensor) -> Scalar:  # a number, or (B,)
        """An upper bound of |Kx| / |x| for x of this shape, tight to about 1 %. Detached."""
        return lanczos_norm(x, self)

    @property
    def shared(self) -> bool:
        """Whether all samples see the same operator."""
        return True

    def take(self, index: Tensor, x: Tensor) -> Self | None:
        """The operator of the samples `index` of a batch shaped like x."""
        return self

    def __matmul__(self, other: Operator) -> Operator:
        if isinstance(other, Identity):
            return self
        if not isinstance(other, Operator):
            return NotImplemented
        return Composite(self, other)

    def __add__(self, other: Operator) -> Operator:
        from .sums import Sum

        return Sum((self, other)) if isinstance(other, Operator) else NotImplemented

    def __sub__(self, other: Operator) -> Operator:
        return self + -1.0 * other if isinstance(other, Operator) else NotImplemented

    def __neg__(self) -> Operator:
        return -1.0 * self

    def __rmul__(self, factor: Tensor | float) -> Operator:
        from .sums import scaled

        return scaled(factor, self) if isinstance(factor, Tensor | Real) else NotImplemented

    __mul__ = __rmul__


@torch.no_grad()
def lanczos_norm(
    x: Tensor, *operators: Operator, max_iter: int = 100, rtol: float = 1e-4
) -> Tensor:  # 0-dim, or (B,)
    """|K|, K x = (K_1 x, ..., K_m x), by the Lanczos method on K*K, from a start that depends on
    the shape only; enlarged by 1 % to be a bound.

    No basis is stored: what is lost with its orthogonality are copies of values found before.
    """
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(x.shape[1:], generator=generator, dtype=torch.float64)
    shared = all(operator.shared for operator in operators)
    v = v.to(x).expand(1 if shared else len(x), *x.shape[1:])
    v = v / expand(norm_event(v), v)
    square, going = norm_event(v) * 0, v.new_ones(len(v), dtype=torch.bool)
    before, diagonal, beside = torch.zeros_like(v), [], [square]
    for k in range(max_iter):
        images = (operator.adjoint(operator(v)) for operator in operators)
        w = reduce(Tensor.add, images) - expand(beside[-1], v) * before
        diagonal.append(inner(v, w))
        w = w - expand(diagonal[-1], v) * v
        beside.append(norm_event(w))
        noise = 10 * eps(v) * diagonal[0].abs()  # beyond it nothing new is left of the space
        beside[-1] = torch.where(beside[-1] > noise, beside[-1], 0.0)
        before, v = v, w * expand(torch.where(beside[-1] > 0, 1 / beside[-1], 0.0), v)
        if k % 5 != 4 and k + 1 < max_iter:
            continue
        reduced = torch.diag_embed(torch.stack(diagonal, -1))
        for offset in (-1, 1):
            reduced = reduced + torch.diag_embed(torch.stack(beside[1:-1], -1), offset)
        previous, top = square, torch.linalg.eigvalsh(reduced)[:, -1]  # -> |K|^2, from below
        square = torch.where(going, top.clamp_min(0), square)
        going = going & ((square - previous) > rtol * square)  # each sample by itself
        if not bool(going.any()):
            break
    norm = 1.01 * square.sqrt()
    return norm[0] if shared else norm


@dataclass(frozen=True, eq=False)
class Identity(Operator):
    """x."""

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def absolute(self) -> Identity:
        return self

    def norm(self, x: Tensor) -> Scalar:
        return 1.0

    def __matmul__(self, other: Operator) -> Operator:
        return other


@dataclass(frozen=True, eq=False)
class Composite(Operator):
    """A(B(x)), written A @ B. The norm is that of the product, not the product of the norms."""

    left: Operator
    right: Operator

    def __call__(self, x: Tensor) -> Tensor:
        return self.left(self.right(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.right.adjoint(self.left.adjoint(y))

    def add_adjoint(self, y: Tensor, total: Tensor) -> None:
        self.right.add_adjoint(self.left.adjoint(y), total)

    @property
    def shared(self) -> bool:
        return self.left.shared and self.right.shared

    def take(self, index: Tensor, x: Tensor) -> Composite | None:
        left, right = self.left.take(index, self.right(x)), self.right.take(index, x)
        return None if left is None or right is None else Composite(left, right)


@dataclass(frozen=True, eq=False)
class Stack(Operator):
    """(K_1 x, ..., K_m x), stacked in a new dim 1; all ranges have the same shape."""

    operators: tuple[Operator, ...]

    def __init__(self, *operators: Operator) -> None:
        if not operators:
            raise ValueError("Stack needs at least one operator, got none.")
        for operator in operators:
            if not isinstance(operator, Operator):
                raise TypeError(
                    f"Stack needs operators, got {type(operator).__name__}. Write Stack(K1, K2), "
                    "and wrap a matrix as Matrix(A)."
                )
        object.__setattr__(self, "operators", operators)

    def __call__(self, x: Tensor) -> Tensor:
        parts = [operator(x) for operator in self.operators]
        if len({p.shape for p in parts}) > 1:
            raise ValueError(
                "Stack needs operators with ranges of one shape, got "
                f"{[tuple(p.shape) for p in parts]}. "
                "Give them to separate terms instead: h1 @ K1 + h2 @ K2."
            )
        return torch.stack(parts, dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.stack(
            [k.adjoint(part) for k, part in zip(self.operators, y.unbind(1), strict=True)]
        ).sum(0)

    def absolute(self) -> Stack:
        return Stack(*(operator.absolute() for operator in self.operators))

    @property
    def shared(self) -> bool:
        return all(operator.shared for operator in self.operators)

    def take(self, index: Tensor, x: Tensor) -> Stack | None:
        taken = [operator.take(index, x) for operator in self.operators]
        return None if None in taken else Stack(*taken)  # type: ignore[arg-type]


def image_dims(name: str, dims: int) -> None:
    """Refuse what is not a number of trailing image dims."""
    if not isinstance(dims, int) or dims not in (1, 2, 3):
        raise ValueError(
            f"{name} needs dims 1, 2 or 3, got {dims!r}: the number of trailing image dims."
        )


def real_numbers(name: str, x: Tensor) -> None:
    """Refuse complex numbers, for operators of real images."""
    if x.is_complex():
        raise TypeError(
            f"{name} is for real numbers, got {x.dtype}. Real and imaginary parts are two channels "
            "of real ones: torch.view_as_real(x).movedim(-1, 1)."
        )


def take_fields(operator, index: Tensor, like: Tensor):
    """Index the declared per-sample fields of a dataclass, at the rank of `like`."""
    fields = {n: getattr(operator, n) for n in operator.batched}
    return replace(operator, **{n: v[index] for n, v in fields.items() if carries_batch(v, like)})
