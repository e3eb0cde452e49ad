"""Laws of the derivative of a solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError

Solution = Callable[..., Tensor]  # parameters -> x, by argmin, solved to a tight tol


def _leaves(parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    for p in parameters:
        if p.dtype != torch.float64:
            raise TypeError(
                f"differences need float64 parameters, got {p.dtype}. Convert with .double()."
            )
    return tuple(p.detach().clone().requires_grad_() for p in parameters)


def _drawn(like: Tensor, generator: torch.Generator) -> Tensor:
    direction = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like)
    return direction / direction.norm().clamp_min(1e-300)


def gradients_agree(
    solution: Solution,
    parameters: Sequence[Tensor],
    rtol: float = 1e-6,
    h: float = 1e-4,
    seed: int = 0,
) -> None:
    """The gradient of <g, x>, g random, along a random direction d of each parameter, is the
    central difference (8 (x(h/2) - x(-h/2)) - (x(h) - x(-h))) / 6h of solutions.

    Differences of unconverged solutions agree with wrong gradients: solution must solve to a tol
    far below rtol h. No kink may lie within h. An error counts relative to the gradient's norm,
    or to a thousandth of |x| / |parameter| where the gradient is smaller.
    """
    leaves = _leaves(parameters)
    generator = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        x = solution(*leaves)
        g = _drawn(x, generator)
        gradients = torch.autograd.grad((g * x).sum(), leaves, allow_unused=True)
    for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
        d = _drawn(leaf, generator)

        def moved(t: float, i: int = i, d: Tensor = d) -> Tensor:
            # as differentiated: without a gradient asked for, argmin may stop earlier
            near = (p.detach() + t * d if j == i else p.detach() for j, p in enumerate(leaves))
            with torch.enable_grad():
                return solution(*(p.requires_grad_() for p in near)).detach()

        wide, narrow = moved(h) - moved(-h), moved(h / 2) - moved(-h / 2)
        expected = float((g * (8 * narrow - wide)).sum()) / (6 * h)
        got = 0.0 if gradient is None else float((gradient * d).sum())
        size = 0.0 if gradient is None else float(gradient.norm())
        natural = float(x.detach().norm() / leaf.detach().norm().clamp_min(1e-300))
        if not abs(got - expected) <= rtol * max(size, abs(expected), 1e-3 * natural):
            raise AssertionError(
                f"gradients_agree is broken for parameter {i}: {got:.12g} by autograd, "
                f"{expected:.12g} by central differences of the solution (gradient's norm "
                f"{size:.3g}, allowed {rtol:.0e}). Is the solution converged, and no kink within "
                f"h = {h:.0e}?"
            )


def gradcheck(solution: Solution, parameters: Sequence[Tensor], **options: Any) -> None:
    """torch.autograd.gradcheck of a solution, with tolerances for solutions to about 1e-12."""
    options = {"eps": 1e-6, "atol": 1e-5, "rtol": 1e-5, **options}
    _checked(torch.autograd.gradcheck, solution, parameters, options)


def gradgradcheck(solution: Solution, parameters: Sequence[Tensor], **options: Any) -> None:
    """torch.autograd.gradgradcheck of a solution: the derivative of its gradient."""
    options = {"eps": 1e-6, "atol": 1e-4, "rtol": 1e-4, **options}
    _checked(torch.autograd.gradgradcheck, solution, parameters, options)


def _checked(check: Any, solution: Solution, parameters: Sequence[Tensor], options: dict) -> None:
    try:
        check(solution, _leaves(parameters), **options)
    except GradcheckError as error:
        raise AssertionError(f"{check.__name__} is broken: {error}") from error
