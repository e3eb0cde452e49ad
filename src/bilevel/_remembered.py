"""Values that are asked for again: twice in a row, or of a tensor that many solves share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ._tangents import differentiates

T = TypeVar("T")


class Remembered(Generic[T]):
    """f, evaluated once where it is asked for again at the same tensors, unchanged. Nothing is
    remembered where a derivative can be asked for."""

    def __init__(self, f: Callable[..., T]) -> None:
        self.f = f
        self.last: tuple[tuple[Tensor, ...], list[int], T] | None = None

    def __call__(self, *x: Tensor) -> T:
        if differentiates() or any(part.is_inference() for part in x):
            return self.f(*x)
        versions = [part._version for part in x]
        if self.last is not None and versions == self.last[1]:
            if all(a is b for a, b in zip(x, self.last[0], strict=True)):
                return self.last[2]
        self.last = None  # first: its memory is used again
        self.last = x, versions, self.f(*x)
        return self.last[2]


class OfTensor(Generic[T]):
    """f(tensor, ...), worked out once for a tensor that solves share, as the data do in learning,
    and again after torch has changed it in place; changes through NumPy or .data are not seen.
    Nothing is kept of a tensor that is gone."""

    def __init__(self, f: Callable[..., T]) -> None:
        self.f = f
        self.known = WeakTensorKeyDictionary()  # tensor -> (version, f(tensor, ...))

    def __call__(self, x: Tensor, *rest: object) -> T:
        if x.is_inference():  # has no version
            return self.f(x, *rest)
        version, value = self.known.get(x) or (None, None)
        if version != x._version:
            value = self.f(x, *rest)
            self.known[x] = x._version, value
        return value  # type: ignore[return-value]
