"""A bound, not an estimate, of a gradient's error, where all constants are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import like, norm_event

if TYPE_CHECKING:
    from .probes import AdjointSolve

_WRITTEN_OUT = 500  # unknowns or parameters up to which the mixed derivative's norm is found


@dataclass(frozen=True)
class Lipschitz:
    """What no term knows and a bound needs: Lipschitz constants in x of the loss's gradient and of
    the mixed derivative, x -> d(grad E)/dθ, for all samples and parameters together.

    For a mean of squares of n numbers loss = 2/n; for E = ... + w/2 |x|^2 and θ = w mixed = 1.
    """

    loss: float
    mixed: float

    def __post_init__(self) -> None:
        for name in ("loss", "mixed"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"Lipschitz needs {name} >= 0 and finite, got {value!r}.")


@torch.no_grad()
def error_bound(solve: AdjointSolve, parameters: Sequence[Tensor], known: Lipschitz) -> Tensor:
    """|gradient - exact gradient| of a loss that reads θ by the solution only, at most

        |J| a + mixed e (|q| + a),   e = |grad E(x)| / mu,
        a = (loss e + |v - H q| + L_2 e |q|) / mu,

    for a smooth E with strong convexity mu and a Hessian H with Lipschitz constant L_2, J =
    d(grad E)/dθ, v the loss's gradient in x and q the adjoint found: up to rounding.

    Proof: |x - x*| <= e, H* (q* - q) = (v* - v) + (v - H q) + (H - H*) q has the length a mu at
    most, and the error is J* (q* - q) + (J* - J) q*. After
    [1] Ehrhardt, Roberts. Analyzing inexact hypergradients for bilevel learning. IMA J. Appl.
        Math., 2024: their a-posteriori bound, with |q| where they have |v| / mu.
    """
    M, q, v = solve.system.M, solve.w, solve.b
    mu, bend = _constants(solve)
    e = norm_event(M.flatten(M.residual).detach()) / mu
    left, size = norm_event(v - M.transposed_product(q)), norm_event(q)
    a = known.loss * e.norm() / mu.min() + ((left + bend * e * size) / mu).norm()
    return _mixed_norm(solve, parameters) * a + known.mixed * e.norm() * (size.norm() + a)


def _constants(solve: AdjointSolve) -> tuple[Tensor, Tensor]:
    """(mu, L_2), one a sample, or an error that says which assumption fails."""
    energy, x = solve.system.energy, solve.point[0]
    advice = "Leave lipschitz out, and read the estimate instead."
    if energy is None or energy.f is None:
        raise ValueError(
            "the bound needs a smooth energy, differentiated by Implicit(): for others none is "
            f"known. {advice}"
        )
    mu, bend = energy.f.strong_convexity(x), energy.f.hessian_lipschitz(x)
    if bend is None or not bool((torch.as_tensor(mu) > 0).all()):
        lacks = "a Lipschitz constant of the Hessian" if bend is None else "strong convexity"
        raise ValueError(f"the bound needs {lacks}, which the terms do not declare. {advice}")
    one = x.new_ones(len(x))
    return like(mu, x) * one, like(bend, x) * one


def _mixed_norm(solve: AdjointSolve, parameters: Sequence[Tensor]) -> Tensor:
    """|d(grad E)/dθ|, by the smaller of its two sides written out."""
    with torch.enable_grad():
        slope = torch.cat([part.flatten() for part in solve.system.M.equation(solve.point)])
        unknowns, count = len(slope), sum(p.numel() for p in parameters)
        if min(unknowns, count) > _WRITTEN_OUT:
            raise ValueError(
                f"the bound writes out a derivative of {unknowns} x {count} numbers, of which one "
                f"side must be at most {_WRITTEN_OUT}. Leave lipschitz out."
            )
        u = torch.zeros_like(slope, requires_grad=True)
        pulled = _pull(slope, parameters, u, create_graph=True)
        if unknowns <= count:
            rows = [_pull(slope, parameters, row) for row in torch.eye(unknowns).to(slope)]
        else:
            rows = [_pull(pulled, (u,), row) for row in torch.eye(count).to(slope)]
    return torch.linalg.matrix_norm(torch.stack(rows), 2)


def _pull(
    outputs: Tensor, inputs: Sequence[Tensor], cotangent: Tensor, create_graph: bool = False
) -> Tensor:
    grads = torch.autograd.grad(
        outputs, inputs, cotangent, retain_graph=True, create_graph=create_graph, allow_unused=True
    )
    pairs = zip(grads, inputs, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])
