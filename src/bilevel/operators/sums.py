"""K + L, K - L, c K: operators added and scaled."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from .._broadcast import Scalar
from .._tangents import differentiates, traced
from .base import Operator


@dataclass(frozen=True, eq=False)
class Sum(Operator):
    """K_1 x + ... + K_m x, written K + L. The norm is that of the sum, by Lanczos iteration."""

    operators: tuple[Operator, ...]

    def __call__(self, x: Tensor) -> Tensor:
        parts = [operator(x) for operator in self.operators]
        if len({part.shape for part in parts}) > 1:
            raise ValueError(
                "operators that are added need ranges of one shape, got "
                f"{[tuple(part.shape) for part in parts]}."
            )
        return reduce(Tensor.add, parts)

    def adjoint(self, y: Tensor) -> Tensor:
        first, *rest = self.operators
        total = first.adjoint(y)
        if differentiates() or traced():
            return reduce(Tensor.add, [operator.adjoint(y) for operator in rest], total)
        total = total.clone()  # it may be y itself
        for operator in rest:
            operator.add_adjoint(y, total)
        return total

    def add_adjoint(self, y: Tensor, total: Tensor) -> None:
        for operator in self.operators:
            operator.add_adjoint(y, total)

    @property
    def shared(self) -> bool:
        return all(operator.shared for operator in self.operators)

    def take(self, index: Tensor, x: Tensor) -> Sum | None:
        taken = [operator.take(index, x) for operator in self.operators]
        return None if None in taken else Sum(tuple(taken))  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Scaled(Operator):
    """c K x, written c * K; c a number or a 0-dim tensor, which may be learned."""

    factor: Tensor | float
    operator: Operator

    def __call__(self, x: Tensor) -> Tensor:
        return self.factor * self.operator(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.operator.adjoint(self.factor * y)

    def add_adjoint(self, y: Tensor, total: Tensor) -> None:
        self.operator.add_adjoint(self.factor * y, total)

    def absolute(self) -> Scaled:
        return Scaled(self._size, self.operator.absolute())

    def norm(self, x: Tensor) -> Scalar:
        return self._size * self.operator.norm(x)

    @property
    def _size(self) -> Tensor | float:
        return self.factor.detach().abs() if isinstance(self.factor, Tensor) else abs(self.factor)

    @property
    def shared(self) -> bool:
        return self.operator.shared

    def take(self, index: Tensor, x: Tensor) -> Scaled | None:
        taken = self.operator.take(index, x)
        return None if taken is None else Scaled(self.factor, taken)


def scaled(factor: Tensor | float, operator: Operator) -> Scaled:
    if isinstance(factor, Tensor) and (factor.ndim or factor.is_complex()):
        raise ValueError(
            f"an operator is multiplied by a real number or a 0-dim tensor, got {factor.dtype} of "
            f"shape {tuple(factor.shape)}. Pixel by pixel is Mask(factor) @ operator."
        )
    return Scaled(factor, operator)


@dataclass(frozen=True, eq=False)
class Part(Operator):
    """x[:, index]: a part of an unknown that is stacked along `dim`, say an image and its slopes.

    An int drops the dim, a slice keeps it. With u, w = Part(0, of=3), Part(slice(1, 3), of=3) the
    difference of a gradient and a field is Gradient() @ u - w.
    """

    index: int | slice
    of: int  # the size of x along `dim`
    dim: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.of, int) or self.of < 1:
            raise ValueError(f"Part needs of, the size of x along dim, >= 1, got {self.of!r}.")
        if isinstance(self.index, slice):
            good = self._range.step == 1 and len(self._range) > 0
        else:
            good = isinstance(self.index, int) and -self.of <= self.index < self.of
        if not good:
            raise ValueError(
                f"Part needs an index between 0 and {self.of - 1}, or a slice of them without "
                f"steps, got {self.index!r}."
            )

    @property
    def _range(self) -> range:
        index = self.index if isinstance(self.index, slice) else slice(self.index % self.of, None)
        return range(*index.indices(self.of))

    @property
    def _length(self) -> int:
        return len(self._range) if isinstance(self.index, slice) else 1

    def __call__(self, x: Tensor) -> Tensor:
        inside = -x.ndim <= self.dim < x.ndim and self.dim % x.ndim
        if not inside or x.shape[self.dim] != self.of:
            raise ValueError(
                f"Part(of={self.of}, dim={self.dim}) needs x of size {self.of} along dim "
                f"{self.dim}, which is no batch, got {tuple(x.shape)}."
            )
        part = x.narrow(self.dim, self._range.start, self._length)
        return part if isinstance(self.index, slice) else part.squeeze(self.dim)

    def adjoint(self, y: Tensor) -> Tensor:
        part = y if isinstance(self.index, slice) else y.unsqueeze(self.dim)
        before = self._range.start
        after = self.of - before - self._length
        sizes = [list(part.shape) for _ in range(2)]
        sizes[0][self.dim], sizes[1][self.dim] = before, after
        return torch.cat([part.new_zeros(sizes[0]), part, part.new_zeros(sizes[1])], self.dim)

    def add_adjoint(self, y: Tensor, total: Tensor) -> None:
        there = self(total)  # a view
        there += y

    def absolute(self) -> Part:
        return self

    def norm(self, x: Tensor) -> Scalar:
        return 1.0
