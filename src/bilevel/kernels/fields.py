"""Vector fields of images on the CPU, in one pass where torch makes ten: differences, the
symmetrized gradient and its adjoint, and the projection of every vector onto a ball."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._tangents import traced
from .arrays import array, plain
from .compiled import over_rows

_LEAST = 2**10  # numbers up to which it is not worth a compilation
_ROW = 16  # numbers side by side that make a vector loop


def covered(x: Tensor) -> bool:
    """Whether it is worth a kernel, which takes x, and nothing of it is recorded or traced."""
    return type(x) is Tensor and x.numel() > _LEAST and plain(x) and not traced()


def differences(x: Tensor) -> Tensor | None:
    """Gradient(2): (..., H, W) -> (..., 2, H, W); None where no kernel does it."""
    if not covered(x):
        return None
    from .field_loops import differences

    return _mapped(differences, x.unsqueeze(-3), 2)


def symmetrized(w: Tensor) -> Tensor | None:
    """SymmetrizedGradient(2): (..., 2, H, W) -> (..., 3, H, W); None where no kernel does it."""
    if not covered(w):
        return None
    from .field_loops import symmetrized

    return _mapped(symmetrized, w, 3)


def symmetrized_adjoint(y: Tensor) -> Tensor | None:
    """Its adjoint: (..., 3, H, W) -> (..., 2, H, W)."""
    if not covered(y):
        return None
    from .field_loops import symmetrized_adjoint

    return _mapped(symmetrized_adjoint, y, 2)


def _mapped(kernel: Any, x: Tensor, components: int) -> Tensor:
    *lead, _, rows, columns = x.shape
    out = x.new_empty(*lead, components, rows, columns)
    images = math.prod(lead)
    fields = (array(part).reshape(images, -1, rows, columns) for part in (x, out))
    over_rows(kernel, images, rows * columns, *fields)
    return out


def onto_balls(y: Tensor, radius: Tensor | float, dim: int | tuple[int, ...]) -> Tensor | None:
    """The projection of the vectors along `dim` onto |y|_2 <= radius, one number for all."""
    if not isinstance(dim, int) or not covered(y) or torch.as_tensor(radius).numel() > 1:
        return None
    dim %= y.ndim
    shape = math.prod(y.shape[:dim]), y.shape[dim], math.prod(y.shape[dim + 1 :])
    if shape[2] < _ROW:
        return None
    from .field_loops import onto_balls

    out = torch.empty_like(y, memory_format=torch.contiguous_format)
    vectors = (array(part).reshape(shape) for part in (y, out))
    limits = y.new_tensor([float(radius), torch.finfo(y.dtype).tiny]).numpy()
    over_rows(onto_balls, shape[0], shape[1] * shape[2], *vectors, limits)
    return out
