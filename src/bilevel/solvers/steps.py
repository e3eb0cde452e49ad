"""Step sizes: limits checked, unknown Lipschitz constants estimated."""

from __future__ import annotations

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, norm_event, tiny
from ..terms.base import Smooth


def positive(name: str, step: Scalar) -> Scalar:
    """The step, detached, or a ValueError if it is not positive and finite."""
    if isinstance(step, Tensor):
        step = step.detach()
        good = bool(((step > 0) & step.isfinite()).all())
    else:
        good = 0 < step < float("inf")
    if not good:
        raise ValueError(
            f"{name} must be positive and finite, got {step}. Leave it out to have it set from the "
            "problem."
        )
    return step


def below(name: str, step: Scalar, limit: Scalar, rule: str) -> None:
    """ValueError unless step < limit for every sample."""
    step_, limit_ = torch.as_tensor(step), torch.as_tensor(limit)
    if bool((step_ >= limit_.to(step_)).any()):
        raise ValueError(
            f"{name} = {float(step_.max()):.6g} cannot converge: it must be below {rule} = "
            f"{float(limit_.min()):.6g}. "
            "Leave it out to have it set from the problem."
        )


def lipschitz(f: Smooth, x: Tensor) -> Scalar:
    """The gradient's Lipschitz constant where the term declares it, else twice the curvature at x
    (power iteration)."""
    constant = f.lipschitz(x)
    return constant if constant is not None else 2 * curvature(f, x)


def curvature(f: Smooth, x: Tensor, max_iter: int = 30) -> Tensor:  # -> (B,)
    """The Hessian's norm at x, by power iteration on Hessian-vector products."""
    v = (
        torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        .to(x)
        .expand_as(x)
    )
    v = v / expand(norm_event(v), v)
    with torch.enable_grad():
        point = x.detach().requires_grad_()
        gradient = f.grad(point)
    size = v.new_ones(len(v))
    if gradient.grad_fn is None:  # a constant gradient: no curvature at all
        return size
    for _ in range(max_iter):
        (product,) = torch.autograd.grad(gradient, point, v, retain_graph=True)
        size = norm_event(product)
        v = product / expand(size.clamp_min(tiny(x)), product)
    return torch.where(size > 0, size, 1.0)
