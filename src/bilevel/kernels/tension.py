"""The half of PrimalDual that is total variation's, on the CPU, whatever the other half is:
h(D x) = sum of weight |D x|, of every difference alone, or of all at a pixel."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from .arrays import array, image_of, per_image, per_pixel, plain
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
    from .rof_loops import ascend

    image = image_of(x, dims, coupled)
    sigma, weights = per_image(expand(step, x), x, image), per_pixel(weight, x, image)
    if sigma is None or weights is None:
        return None
    _compile(array(y).dtype)
    new = y.clone(memory_format=torch.contiguous_format)
    xs, ys, s, w = _rows(x, image), _differences(new, image), array(sigma), array(weights)
    rest = isotropic, _height(image), np.finfo(s.dtype).tiny
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
