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
_PRODUCTS = {_aten.mm.default, _aten.bmm.default, _aten.addmm.default}
# multiplications that pay for the call, and for each cast: measured on one core with matrix units.
# Convolutions hardly do.
_LEAST, _EACH = 2**26, 100


class RoughProducts(TorchDispatchMode):
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
        self.rounded += 1
        a, b = map(self._half, args[-2:])
        product = (torch.bmm if a.ndim == 3 else torch.mm)(a, b).float()
        return product if len(args) == 2 else product.add_(args[0])

    def _half(self, matrix: Tensor) -> Tensor:
        owner = matrix if matrix._base is None else matrix._base
        if not (owner.is_leaf and owner.requires_grad):
            return matrix.to(torch.bfloat16)
        key = matrix.data_ptr(), matrix._version, matrix.shape, matrix.stride()
        if key not in self._known:
            self._known[key] = matrix, matrix.to(torch.bfloat16)
        return self._known[key][1]


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
    if a.layout != torch.strided or b.layout != torch.strided:
        return False
    count = a.numel() * b.shape[-1]
    cast = a.numel() + b.numel() + count // max(a.shape[-1], 1)
    return a.dtype == b.dtype == torch.float32 and count >= max(_LEAST, _EACH * cast)
