"""The half of PrimalDual that is total variation's, on the CPU, whatever the other half is."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from .._tangents import differentiates
from ..terms.total_variation import TotalVariation
from .compiled import announced, spread
from .denoising import array, image_of, per_image, per_pixel


def ascend(tv: TotalVariation, y: Tensor, x: Tensor, step: Scalar) -> Tensor | None:
    """prox_{step h*}(y + step D x), h the norm that tv takes of Dx; None where no kernel does it.

    y is 0 across the far edges, as a dual is that has started so. One pass over x and y.
    """
    if not plain(x) or (tv.coupled and not tv.isotropic):
        return None
    from .rof_loops import ascend

    image = image_of(tv, x)
    sigma, weight = per_image(expand(step, x), x, image), per_pixel(tv.weight, x, image)
    if sigma is None or weight is None:
        return None
    _compile(array(y).dtype)
    new = y.clone(memory_format=torch.contiguous_format)
    xs, ys, s, w = _rows(x, image), _differences(new, image), array(sigma), array(weight)
    rest = tv.isotropic, _height(image), np.finfo(s.dtype).tiny
    spread(ascend, [(xs[i], ys[i], s[i], w[i], *rest) for i in range(len(xs))])
    return new


def pull(y: Tensor, dims: int) -> Tensor | None:
    """D* y; None where no kernel does it."""
    x = y.select(-dims - 1, 0)
    if not plain(x):
        return None
    from .rof_loops import divergence

    image = (1, *x.shape[-dims:])
    _compile(array(y).dtype)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    xs, ys = _rows(out, image), _differences(y, image)
    spread(divergence, [(ys[i], _height(image), xs[i]) for i in range(len(xs))])
    return out.neg_()


def plain(x: Tensor) -> bool:
    """Whether a kernel takes x, and nothing of it is recorded."""
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)
    return known and x.numel() > 0 and not differentiates()


def _height(image: tuple[int, ...]) -> int:
    """Rows in a plane."""
    return math.prod(image[-2:-1])


def _rows(x: Tensor, image: tuple[int, ...]) -> np.ndarray:  # -> (N, C, rows, W)
    return array(x).reshape(-1, image[0], math.prod(image[1:-1]), image[-1])


def _differences(y: Tensor, image: tuple[int, ...]) -> np.ndarray:  # -> (N, C, dims, rows, W)
    return array(y).reshape(-1, image[0], len(image) - 1, math.prod(image[1:-1]), image[-1])


@lru_cache
def _compile(dtype: np.dtype) -> None:
    """Once, by one thread: an image of one pixel."""
    from .rof_loops import ascend, divergence

    dot, pair, tiny = (
        np.zeros((1, 1, 1), dtype),
        np.zeros((1, 2, 1, 1), dtype),
        np.finfo(dtype).tiny,
    )
    with announced(ascend, divergence):
        ascend(dot, pair, tiny, dot[0], True, 1, tiny)
        divergence(pair, 1, dot)
