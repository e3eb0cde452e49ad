"""The sparse matrices of maps that are local: each number depends on few of its neighbours."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .noise import noise

Sparse = Any  # a csc_array of SciPy's, which is not imported with bilevel
Map = Callable[[Tensor], Tensor]  # (B, *event) -> (B, *range), linear

_WIDTHS = (1, 2, 3, 5, 7, 9)  # of combs
_COLOURS = 250  # combs of one width
_NOISE = 1e-12  # beside the largest number: rounding


def sparse_matrices(image: Map, x: Tensor) -> list[Sparse] | None:
    """The matrices of a linear map at the shape of x, one a sample, CSC; None if it is not local.

    The pixels of a comb are lit together, once by 1 and once by their numbers: where no row sees
    two of them, the ratio tells to whom a response belongs. The combs get wider until the matrices
    do to a random vector what the map does. 8 products for the differences of an image.
    [1] Curtis, Powell, Reid. On the estimation of sparse Jacobian matrices. IMA J. Appl. Math.,
        1974.
    """
    n, v = x[0].numel(), noise(x)
    expected = rows(image(v))
    if not np.isfinite(expected).all():
        return None
    reached = (_lit(image, x, [n // 2], [1.0]) != 0).sum(1).max()
    needed = reached * n / max(2 * expected.shape[1], 1)  # colours: about twice that a row sees
    for width in _WIDTHS:
        colours = math.prod(min(width, size) for size in x.shape[1:])
        if not needed <= colours <= _COLOURS:
            continue
        matrices = _by_combs(image, x, width, expected.shape[1])
        tried = zip(matrices, rows(v), expected, strict=True)
        if all(_close(matrix @ row, to) for matrix, row, to in tried):
            return matrices
    return None


def _by_combs(image: Map, x: Tensor, width: int, rows: int) -> list[Sparse]:
    from scipy.sparse import csc_array  # not with `import bilevel`

    entries: list[list[tuple[np.ndarray, ...]]] = [[] for _ in x]
    for index in _combs(x.shape[1:], width):
        lit = _lit(image, x, index, np.ones(len(index)))
        numbered = _lit(image, x, index, np.arange(1.0, len(index) + 1))
        for found, one, number in zip(entries, lit, numbered, strict=True):
            at = one.nonzero()[0]
            whose = np.rint(number[at] / one[at]).astype(int).clip(1, len(index)) - 1
            found.append((one[at], at, index[whose]))
    shape = rows, x[0].numel()
    matrices = []
    for found in entries:
        values, row, column = (np.concatenate(part) for part in zip(*found, strict=True))
        matrices.append(csc_array((values, (row, column)), shape=shape))
    return matrices


def _combs(shape: torch.Size, width: int) -> Iterator[np.ndarray]:
    """The indices of the pixels of each comb."""
    numbers = np.arange(shape.numel()).reshape(shape)
    for offset in product(*(range(min(width, size)) for size in shape)):
        yield numbers[tuple(slice(first, None, width) for first in offset)].ravel()


def _lit(image: Map, x: Tensor, index: Any, values: Any) -> np.ndarray:  # -> (B, rows)
    """The response to some pixels, without what is rounding."""
    flat = x.new_zeros(x[0].numel())
    flat[torch.as_tensor(index)] = torch.as_tensor(values, dtype=x.dtype, device=x.device)
    found = rows(image(flat.reshape(x.shape[1:]).expand_as(x)))
    size = np.abs(found)
    return np.where(size > _NOISE * size.max(1, keepdims=True, initial=0.0), found, 0.0)


def rows(v: Tensor) -> np.ndarray:  # -> (B, n)
    return v.detach().flatten(1).double().cpu().numpy()


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.linalg.norm(a - b) <= 1e-6 * np.linalg.norm(b))
