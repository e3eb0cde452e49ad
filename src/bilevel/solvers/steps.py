"""Step sizes: limits checked, unknown Lipschitz constants estimated."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, norm_event, tiny
from ..terms.base import Proximable, Smooth, Term


def positive(name: str, step: object, x: Tensor) -> Scalar:
    """The step, detached; an error unless it is positive and finite, a number or one a sample."""
    advice = "Leave it out to have it set from the problem."
    if isinstance(step, Tensor):
        step = step.detach()
        if step.ndim and step.shape != (len(x),):
            raise ValueError(
                f"{name} has shape {tuple(step.shape)}: a number, or one a sample, ({len(x)},), is "
                f"needed. {advice}"
            )
        if step.ndim and (step.device != x.device or step.dtype != x.dtype):
            raise ValueError(
                f"{name} is {step.dtype} on {step.device}, x is {x.dtype} on {x.device}. Convert "
                f"it, {name}.to(x)."
            )
        good = not step.is_meta and bool(((step > 0) & step.isfinite()).all())
        step = step if step.ndim or not good else step.to(x)
    elif isinstance(step, Real):
        step = float(step)
        good = 0 < step < float("inf")
    else:
        raise TypeError(f"{name} must be a number or a tensor, got {step!r}. {advice}")
    if not good:
        raise ValueError(f"{name} must be positive and finite, got {step}. {advice}")
    return step  # type: ignore[return-value]


def below(name: str, step: Scalar, limit: Scalar, rule: str, least: float = 0.0) -> None:
    """ValueError unless least * limit <= step < limit for every sample."""
    step_, limit_ = (torch.as_tensor(v, dtype=torch.float64) for v in (step, limit))
    limit_ = limit_.to(step_)
    what = "cannot converge: it must be below"
    wrong = step_ >= limit_
    if not bool(wrong.any()):
        wrong = step_ < least * limit_
        if not bool(wrong.any()):
            return
        what = "is too small to get anywhere, and would pass for converged, beside"
    step_, limit_ = (v.expand(wrong.shape)[wrong].flatten()[0] for v in (step_, limit_))
    raise ValueError(
        f"{name} = {float(step_):.6g} {what} {rule} = {float(limit_):.6g}. "
        "Leave it out to have it set from the problem."
    )


def weak_convexity(term: Term | None, x: Tensor) -> Scalar:
    """rho: the prox of the term is continuous for steps below 1 / rho; 0 for a convex term, and
    for one, such as L0, that no step makes so."""
    mu = 0.0 if term is None else term.strong_convexity(x)
    if isinstance(mu, Tensor):
        return torch.where(mu > -torch.inf, -mu, 0.0).clamp(min=0)
    return -mu if -float("inf") < mu < 0 else 0.0


def convex(term: Term | None, x: Tensor) -> bool:
    """Whether the term is convex, as far as it declares."""
    mu = 0.0 if term is None else term.strong_convexity(x)
    return bool((mu >= 0).all()) if isinstance(mu, Tensor) else mu >= 0


def continuous(name: str, step: Scalar, rho: Scalar, who: object) -> None:
    """ValueError unless the prox of a weakly convex term is continuous for the step."""
    if bool((rho > 0).any()) if isinstance(rho, Tensor) else rho > 0:
        rule = f"1 / rho, rho the weak convexity of {type(who).__name__},"
        below(name, step, 1 / torch.as_tensor(rho, dtype=torch.float64), rule)


def chosen(name: str, step: object, term: Term | None) -> None:
    """ValueError where the step is left to the default although the solution depends on it."""
    if step is None and isinstance(term, Proximable) and term.tuned_by_step:
        raise ValueError(
            f"{name} has no default with {type(term).__name__}: no function stands behind it, and "
            f"what it takes off depends on the step. Pass a solver with {name}=..., such as "
            "ForwardBackward(step_size=1.0)."
        )


LEAST = 1e-3  # of its limit: T with a smaller step moves less than the tolerance wherever it is


def lipschitz(f: Smooth, x: Tensor) -> Scalar:
    """The gradient's Lipschitz constant where the term declares it, else twice the curvature at x
    (power iteration). A constant 0, of a weight 0, is replaced by 1, as good a bound."""
    constant = f.lipschitz(x)
    if constant is None:
        return 2 * curvature(f, x)
    if isinstance(constant, Tensor):
        return torch.where(constant > 0, constant, 1.0)
    return constant if constant > 0 else 1.0


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
