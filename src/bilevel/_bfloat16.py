"""Large products in bfloat16, where the machine has units for it: two digits right, at a fourth of
the price. For what full precision mends: a start, the inner steps of a refinement."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ._tangents import traced

ROUGH = 5e-3  # a relative change that rough products still tell
_aten = torch.ops.aten
_MATRICES = {_aten.mm.default: 0, _aten.bmm.default: 0, _aten.addmm.default: 1}
_FILTERS = {_aten.convolution.default: 1, _aten.convolution_backward.default: 2}
# multiplications that pay for the call, and for each cast: measured on one core with matrix units
_LEAST, _EACH = 2**24, 40


class RoughProducts(TorchDispatchMode):
    """Inside, large products of float32 matrices, and convolutions, are rounded to bfloat16;
    nothing else is, no dtype changes, and what autograd records is the same. Of this thread alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rounded = 0  # products
        self._known: dict[tuple, tuple[Tensor, Tensor]] = {}  # parameters, and they in bfloat16

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if types or kwargs or not _worthwhile(operation, args):
            return operation(*args, **(kwargs or {}))
        self.rounded += 1
        if operation is _aten.addmm.default:  # the summand as it is
            return _full(_aten.mm.default(*map(self._half, args[1:]))).add_(args[0])
        return _full(operation(*map(self._half, args)))

    def _half(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        owner = value if value._base is None else value._base
        if not (owner.is_leaf and owner.requires_grad):
            return value.to(torch.bfloat16)
        key = value.data_ptr(), value._version, value.shape, value.stride()
        if key not in self._known:
            self._known[key] = value, value.to(torch.bfloat16)
        return self._known[key][1]


def rough_products(x: Tensor) -> RoughProducts | None:
    """The mode, where it may gain in products with x."""
    large = x.dtype == torch.float32 and x.numel() >= _LEAST // 1024
    seen = not traced() and not torch.is_inference_mode_enabled()  # else no mode sees the products
    return RoughProducts() if large and seen and x.is_cpu and _has_units() else None


@cache
def _has_units() -> bool:
    return torch.cpu._is_amx_tile_supported()


def _worthwhile(operation: Any, args: tuple) -> bool:
    """Whether the multiplications are many, and many for each number that has to be cast."""
    if operation in _MATRICES:
        a, b = args[_MATRICES[operation] :]
        count = a.numel() * b.shape[-1]
        cast = a.numel() + b.numel() + count // max(a.shape[-1], 1)
    elif operation in _FILTERS:
        a, b = args[0], args[_FILTERS[operation]]
        pixels = a.numel() // max(a.shape[1], 1)
        count, cast = pixels * b.numel(), pixels * sum(b.shape[:2]) + b.numel()
    else:
        return False
    return a.dtype == b.dtype == torch.float32 and count >= max(_LEAST, _EACH * cast)


def _full(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(_full, value))
    return value.float() if isinstance(value, Tensor) else value
