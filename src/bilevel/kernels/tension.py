"""The half of PrimalDual that is total variation's, on the CPU, whatever the other half is:
h(D x) = sum of weight |D x|, of every difference alone, or of all at a pixel."""

from __future__ import annotations

import math
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from .arrays import array, image_of, loops_of, per_image, per_pixel, plain
from .compiled import announced, spread


def ascend(
    y: Tensor, x: Tensor, step: Scalar, weight: Scalar, *, dims: int, isotropic: bool, coupled: bool
) -> Tensor | None:
    """prox_{step h*}(y + step D x); None where no kernel does it.

    isotropic: |.| of all differences at a pixel, of all channels too where they are coupled. y is 0
    across the far edges, as a dual is that has started so. One pass over x and y.
    """
    if not plain(x) or (coupled and not isotropic):
        return None
    image = image_of(x, dims, coupled)
    s = _numbers(per_image, expand(step, x), x, image)
    w = _numbers(per_pixel, weight, x, image)
    if s is None or w is None:
        return None
    ascend, _ = _compiled(loops_of(image), s.dtype)
    new = torch.empty_like(y, memory_format=torch.contiguous_format)
    xs, ys, news = _rows(x, image), _differences(y, image), _differences(new, image)
    rest = isotropic, _height(image), np.finfo(s.dtype).tiny
    spread(ascend, [(xs[i], ys[i], s[i], w[i], *rest, news[i]) for i in range(len(xs))])
    return new


def _numbers(spread_out: Any, number: Scalar, x: Tensor, image: torch.Size) -> np.ndarray | None:
    """`per_image` or `per_pixel` as an array; one number for all takes a shorter way."""
    if isinstance(number, Tensor) and (number.numel() > 1 or number.ndim > x.ndim):
        numbers = spread_out(number, x, image)
        return None if numbers is None else array(numbers)
    count = x.numel() // image.numel()
    shape = (count,) if spread_out is per_image else (count, 1, image[-1])
    one = number.item() if isinstance(number, Tensor) else number
    return np.full(shape, one, array(x).dtype)


def pull(y: Tensor, dims: int) -> Tensor | None:
    """D* y; None where no kernel does it."""
    x = y.select(-dims - 1, 0)
    if not plain(x):
        return None
    image = (1, *x.shape[-dims:])
    _, pull = _compiled(loops_of(image), array(y).dtype)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    xs, ys = _rows(out, image), _differences(y, image)
    spread(pull, [(ys[i], _height(image), xs[i]) for i in range(len(xs))])
    return out


def _height(image: tuple[int, ...]) -> int:
    """Rows in a plane."""
    return math.prod(image[-2:-1])


def _rows(x: Tensor, image: tuple[int, ...]) -> np.ndarray:  # -> (N, C, rows, W)
    return array(x).reshape(-1, image[0], math.prod(image[1:-1]), image[-1])


def _differences(y: Tensor, image: tuple[int, ...]) -> np.ndarray:  # -> (N, C, dims, rows, W)
    return array(y).reshape(-1, image[0], len(image) - 1, math.prod(image[1:-1]), image[-1])


@lru_cache
def _compiled(loops: ModuleType, dtype: np.dtype) -> tuple[Any, Any]:
    """(ascend, pull), once, by one thread: an image of one pixel."""
    from .rof_loops import pull

    ascend, tiny = loops.ascend, np.finfo(dtype).tiny
    dot, pair = np.zeros((1, 1, 1), dtype), np.zeros((1, 2, 1, 1), dtype)
    with announced(ascend, pull):
        ascend(dot, pair, tiny, dot[0], True, 1, tiny, pair.copy())
        pull(pair, 1, dot)
    return ascend, pull
