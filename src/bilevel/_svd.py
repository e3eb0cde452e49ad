"""Singular values that come even where LAPACK's first try fails."""

import torch
from torch import Tensor


def svd(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # (..., m, n) -> u, s, vh
    """The reduced singular value decomposition.

    Divide and conquer, which LAPACK takes on the CPU, fails now and then on a finite matrix with
    many equal singular values, as parts of orthonormal ones are, and torch refuses the whole batch.
    The transposed matrix, which has the same ones, goes another way there.
    """
    try:
        return torch.linalg.svd(matrix, full_matrices=False)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if matrix.ndim == 2:
            v, s, uh = torch.linalg.svd(matrix.mT, full_matrices=False)
            return uh.mT, s, v.mT
    each = [svd(part) for part in matrix.flatten(0, -3)]
    u, s, vh = (torch.stack(parts) for parts in zip(*each, strict=True))
    batch = matrix.shape[:-2]
    return u.unflatten(0, batch), s.unflatten(0, batch), vh.unflatten(0, batch)
