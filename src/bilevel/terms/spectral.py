"""Functions of singular values and eigenvalues, twice differentiable where these are repeated.

Every prox here is piecewise linear in the spectrum: with X = U diag(s) V^T it is

    F(X) = sum over active i of (slope s_i + jump) u_i v_i^T

or X minus that, where the active values are those above some threshold. For soft thresholding the
slope is 1 and the jump -t. Their derivatives: divided_differences.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .._svd import svd
from .divided_differences import Rectangular, Symmetric, apply
from .threshold import project_simplex


def soft_threshold(x: Tensor, t: Tensor | float) -> Tensor:
    """U (s - t)_+ V^T for the matrices of the last two dims; t broadcasts as (..., 1, 1)."""
    if x.shape[-2] > x.shape[-1]:
        return soft_threshold(x.mT, t).mT
    frame = singular(x.detach())
    t = _one_a_matrix(t, x)
    values = (frame.spectrum - t.detach()[..., 0]).clamp(min=0)
    return apply(x, -t, frame, values > 0, values, 1.0)


def clip(x: Tensor, bound: Tensor | float) -> Tensor:
    """U min(s, bound) V^T for the matrices of the last two dims."""
    if x.shape[-2] > x.shape[-1]:
        return clip(x.mT, bound).mT
    frame = singular(x.detach())
    bound = _one_a_matrix(bound, x)
    values = torch.minimum(frame.spectrum, bound.detach()[..., 0])
    over = frame.spectrum > values
    cut = apply(x, -bound, frame, over, (frame.spectrum - values) * over, 1.0)
    exact = torch.where(
        (frame.spectrum <= values).all(-1)[..., None, None], x, frame.matrix(values)
    )
    return x - cut + (exact - (x - cut)).detach()  # cut loses what is small against x


def project_nuclear(x: Tensor, radius: Tensor | float) -> Tensor:
    """The nearest matrices with sum s <= radius: x, or U (s - level)_+ V^T."""
    if x.shape[-2] > x.shape[-1]:
        return project_nuclear(x.mT, radius).mT
    frame = singular(x.detach())
    radius = _one_a_matrix(radius, x)
    inside = frame.spectrum.sum(-1)[..., None, None] <= radius
    values = project_simplex(frame.spectrum, radius.detach()[..., 0], -1)
    active = (values > 0) & ~inside[..., 0]
    direction = apply(x, torch.ones_like(radius), frame, active, active.to(x), 0.0)
    mass = (x * direction).sum((-2, -1), keepdim=True)  # of the active values
    level = (mass - radius) / active.sum(-1).clamp(min=1)[..., None, None]
    return torch.where(inside, x, apply(x, -level, frame, active, values, 1.0))


def positive_part(x: Tensor) -> Tensor:
    """Q max(l, 0) Q^T for the symmetric matrices of the last two dims."""
    safe, broken = _finite(x.detach())
    spectrum, q = torch.linalg.eigh(safe)
    spectrum = spectrum.masked_fill(broken, torch.nan)
    values = spectrum.clamp(min=0)
    no_jump = torch.zeros_like(x[..., :1, :1])
    return apply(x, no_jump, Symmetric(q, spectrum), values > 0, values, 1.0)


def _one_a_matrix(value: Tensor | float, x: Tensor) -> Tensor:  # (..., 1, 1)
    value = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    return value.expand(*x.shape[:-2], 1, 1)


def singular_values(x: Tensor) -> Tensor:  # (..., m, n) -> (..., min(m, n))
    """NaN for a matrix that is not finite."""
    safe, broken = _finite(x)
    return torch.linalg.svdvals(safe).masked_fill(broken, torch.nan)


def eigenvalues(x: Tensor) -> Tensor:  # (..., n, n) -> (..., n), rising
    """Of symmetric matrices; NaN for one that is not finite."""
    safe, broken = _finite(x)
    return torch.linalg.eigvalsh(safe).masked_fill(broken, torch.nan)


def _finite(x: Tensor) -> tuple[Tensor, Tensor]:
    """(x with 0 for matrices that are not finite, which those are): LAPACK refuses a whole batch
    because of one."""
    broken = ~x.isfinite().all(-1).all(-1)[..., None]
    return x.masked_fill(broken[..., None], 0.0), broken


def singular(x: Tensor) -> Rectangular:
    """With derivatives where the values differ."""
    safe, broken = _finite(x)
    u, spectrum, vh = svd(safe)
    return Rectangular(u, spectrum.masked_fill(broken, torch.nan), vh)
