"""Laws of operators."""

from __future__ import annotations

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, inner, norm_event, tiny
from ..operators.base import Operator
from .verdict import holds, same_shape


def _draw(shape: torch.Size, like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    dtype = torch.complex128 if like.is_complex() else torch.float64
    return torch.randn(shape, generator=generator, dtype=dtype).to(like)


def adjoint_dot_test(operator: Operator, x: Tensor, seed: int = 0) -> None:
    """|<Kx, y> - <x, K*y>| <= 64 eps |Kx| |y|, for a random y, and K*y is of x's dtype. Of complex
    numbers the real part."""
    image = operator(x)
    y = _draw(image.shape, image, seed)
    back = operator.adjoint(y)
    same_shape("adjoint_dot_test", operator, back, tuple(x.shape))
    assert back.dtype == x.dtype, f"{type(operator).__name__}: K*y is {back.dtype}, x {x.dtype}."
    off = (inner(image, y) - inner(x, back)).abs()
    scale = norm_event(image) * norm_event(y) + norm_event(x) * norm_event(back)
    holds("adjoint_dot_test", operator, off, 64 * eps(x) * scale)


def is_linear(operator: Operator, x: Tensor, y: Tensor) -> None:
    """K(x - 2y) = Kx - 2Ky, sample by sample."""
    images = operator(x), operator(y)
    scale = norm_event(images[0]) + norm_event(images[1]) + norm_event(x) + norm_event(y)
    off = norm_event(operator(x - 2 * y) - (images[0] - 2 * images[1]))
    holds("is_linear", operator, off, 64 * eps(x) * scale)


def norm_bounds(operator: Operator, x: Tensor, rtol: float = 0.02, max_iter: int = 300) -> None:
    """|Kx| <= norm(x) |x|, and norm(x) <= (1 + rtol) |Ku| / |u| for the u that x becomes under
    power iteration; for a batch of different operators sample by sample."""
    norm: Scalar = operator.norm(x)
    assert not (isinstance(norm, Tensor) and norm.requires_grad), "norm() must be detached."
    reached = torch.zeros_like(norm_event(x))
    for k in range(max_iter):
        ratio = norm_event(operator(x)) / norm_event(x).clamp_min(tiny(x))
        holds("norm_bounds", operator, ratio - norm, 64 * eps(x) * ratio)
        if k > 50 and bool((ratio <= reached * (1 + 1e-5)).all()):  # it may pause at another value
            break
        reached = torch.maximum(reached, ratio)
        x = operator.adjoint(operator(x))
        x = x / expand(norm_event(x).clamp_min(tiny(x)), x)
    if operator.shared:
        reached = reached.max()
    tight = norm - (1 + rtol) * reached
    holds("norm_bounds (tight)", operator, torch.as_tensor(tight).to(reached), 64 * eps(x))


def absolute_is_entrywise(operator: Operator, x: Tensor) -> None:
    """absolute() e = |K e| for every unit vector e; its adjoint passes the dot test."""
    absolute = operator.absolute()
    for j in range(x[0].numel()):
        unit = torch.zeros_like(x)
        unit.flatten(1)[:, j] = 1
        off = (absolute(unit) - operator(unit).abs()).abs()
        holds("absolute_is_entrywise", operator, off, 64 * eps(x) * (1 + operator(unit).abs()))
    adjoint_dot_test(absolute, x)
