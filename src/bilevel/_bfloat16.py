"""Large products in bfloat16, where the machine has units for it: two digits right, at a fourth of
the price. For what full precision mends: a start, the inner steps of a refinement."""

from __future__ import annotations

from abc import abstractmethod
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ._tangents import traced

ROUGH = 5e-3  # a relative change that rough products still tell
_aten = torch.ops.aten
_PRODUCTS = {_aten.mm.default, _aten.bmm.default, _aten.addmm.default}
# multiplications that pay for the call, and for each cast: measured on one core with matrix units.
# Convolutions hardly do.
_LEAST, _EACH = 2**26, 100


# the factors and their product, and the version of each
_Made = tuple[tuple[Tensor, Tensor, Tensor], list[int]]


class Rough(TorchDispatchMode):
    """Inside, large products of float32 matrices are rounded to bfloat16; nothing else is, no dtype
    changes, and what autograd records is the same. Of this thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self.rounded = 0  # products
        self._known: dict[tuple, tuple[Tensor, Tensor]] = {}  # parameters, and they in bfloat16

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if types or kwargs or operation not in _PRODUCTS or not _worthwhile(*args[-2:]):
            return operation(*args, **(kwargs or {}))
        product = self._product(*args[-2:])
        return product if len(args) == 2 else args[0] + product

    @abstractmethod
    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        """a b, rounded somehow."""

    def _rounded(self, a: Tensor, b: Tensor) -> Tensor:
        self.rounded += 1
        return _times(self._half(a), self._half(b)).float()

    def _half(self, matrix: Tensor) -> Tensor:
        owner = matrix if matrix._base is None else matrix._base
        if not (owner.is_leaf and owner.requires_grad):
            return matrix.to(torch.bfloat16)
        key = _key(matrix)
        if key not in self._known:
            self._known[key] = matrix, matrix.to(torch.bfloat16)
        return self._known[key][1]


class RoughProducts(Rough):
    """Two digits of each product are right."""

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        return self._rounded(a, b)


class RoughChanges(Rough):
    """Two digits of each change of a product are right: one factor of which is as it was is the
    last one plus the rounded product of what the other has changed by.

    Each entering is one evaluation of the same map; the first is in float32, and so are products of
    which both factors have changed. The factors and products of one evaluation are kept.

    [1] Neil, Lee, Delbruck, Liu. Delta networks for optimized recurrent network computation. 2017.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now: list[_Made] = []  # the products of this evaluation

    def __enter__(self) -> Self:
        self._last, self._now = iter(self._now), []
        return super().__enter__()

    def _product(self, a: Tensor, b: Tensor) -> Tensor:
        change = self._change(a, b, next(self._last, None))
        product = _times(a, b) if change is None else change
        parts = a, b, product
        self._now.append((parts, [part._version for part in parts]))
        return product

    def _change(self, a: Tensor, b: Tensor, last: _Made | None) -> Tensor | None:
        if last is None:
            return None
        (a0, b0, product), versions = last
        in_place = versions != [part._version for part in last[0]]
        if in_place or a0.shape != a.shape or b0.shape != b.shape:
            return None
        if _key(b) == _key(b0):
            return self._rounded(a - a0, b).add_(product)
        if _key(a) == _key(a0):
            return self._rounded(a, b - b0).add_(product)
        return None


def _key(matrix: Tensor) -> tuple:
    """Which matrix it is, while it is kept, and of what version."""
    return matrix.data_ptr(), matrix._version, matrix.shape, matrix.stride()


def _times(a: Tensor, b: Tensor) -> Tensor:
    return (torch.bmm if a.ndim == 3 else torch.mm)(a, b)


def rough_products(x: Tensor) -> RoughProducts | None:
    """The mode, where it may gain in products with x."""
    large = x.dtype == torch.float32 and x.numel() >= _LEAST // 1024
    seen = not traced() and not torch.is_inference_mode_enabled()  # else no mode sees the products
    return RoughProducts() if large and seen and x.is_cpu and _has_units() else None


@cache
def _has_units() -> bool:
    return torch.cpu._is_amx_tile_supported()


def _worthwhile(a: Tensor, b: Tensor) -> bool:
    """Whether the multiplications are many, and many for each number that has to be cast."""
    if any(part.layout != torch.strided or part.is_inference() for part in (a, b)):
        return False  # those of inference mode have no version
    count = a.numel() * b.shape[-1]
    cast = a.numel() + b.numel() + count // max(a.shape[-1], 1)
    return a.dtype == b.dtype == torch.float32 and count >= max(_LEAST, _EACH * cast)
