"""A bound, not an estimate, of a gradient's error, where all constants are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import difference, expand, like, norm_event
from .contraction import Contraction, Unproven

if TYPE_CHECKING:
    from .piggyback import TangentSolve
    from .probes import AdjointSolve

Z = tuple[Tensor, ...]
_ADVICE = "Leave lipschitz out, and read the estimate instead."
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
    with torch.enable_grad():
        slope = solve.system.M.equation(solve.point)
    J = _mixed_norm(slope, parameters)
    return J * a + known.mixed * e.norm() * (size.norm() + a)


@torch.no_grad()
def tangent_bound(
    solve: TangentSolve, factor: Tensor, conditions: Z, parameters: Sequence[Tensor],
    known: Lipschitz,
) -> Tensor:  # fmt: skip
    """The same for the adjoint c U that Piggyback found, in the metric P in which the step S
    contracts by 1 - gap (`Contraction`): with z and U the pairs (x, y),

        |J| a + mixed e (|c U| + a),   |z - z*|_P <= |z - S(z)|_P / gap,
        |U - U*|_P <= (|U - dS(z) U|_P + push d) / gap,   d = (loss / c + L_2 |U_x|) |x - x*|,

    e and a the lengths of these errors in (x, dual of g, y), and J = d(grad of the augmented
    Lagrangian)/dθ. Holds where every prox acts at the solution as it does here, by an affine piece,
    which is checked: dS moves with the Hessian of f and the loss's gradient only, the two in d.

    Proof: U* = dS(z*) U*, so U - U* = (U - dS(z) U) + (dS(z) - dS(z*)) U + dS(z*)(U - U*), dS of
    U for the tilted energy; the middle is a push of grad f by d, and |dS(z*)|_P <= 1 - gap. After
    Bogensperger, Ehrhardt, Pock, Salehi, Wong 2024.
    """
    both, c = solve.both, factor.abs()
    count = len(solve.state) // 2
    (x, _, *y), (u, _, *s) = solve.state[:count], solve.state[count:]
    after = both.averaged(solve.state)
    (new, _, *duals), (moved, _, *turned) = after[:count], after[count:]
    try:
        proven = Contraction.of(both.problem, both.solver.inner, x)  # type: ignore[attr-defined]
        off = proven.settled(x, tuple(y), (new, tuple(duals)))
    except Unproven as why:
        raise ValueError(f"the bound of Piggyback: {why}. {_ADVICE}") from None
    dx, dy = proven.parts(off)
    bend = c * proven.bend * dx * norm_event(u)
    left = (c * proven.length(u - moved, difference(s, turned)) + proven.push * bend) / proven.gap
    turn = known.loss * dx.norm()  # of the loss's gradient, all samples together
    ax, ay = (part.norm() for part in proven.parts(left))
    most = (proven.push / proven.gap).max() * turn
    bx, by = (part.max() * most for part in proven.parts(torch.ones_like(left)))
    ex, ey, ax, ay = dx.norm(), dy.norm(), ax + bx, ay + by
    L, K = proven.smooth.max(), proven.norm.max()
    e, a = torch.hypot(ex, ey), torch.hypot(ax, ay)
    if both.problem.g is not None:  # its dual is minus the slope of the others
        e, a = e + L * ex + K * ey, a + L * ax + K * ay + bend.norm() + turn
    size = torch.stack([(expand(c, part) * part).norm() for part in solve.adjoint]).norm()
    return _mixed_norm(conditions, parameters) * a + known.mixed * e * (size + a)


def _constants(solve: AdjointSolve) -> tuple[Tensor, Tensor]:
    """(mu, L_2), one a sample, or an error that says which assumption fails."""
    energy, x = solve.system.energy, solve.point[0]
    if energy is None or energy.f is None:
        raise ValueError(
            "the bound needs a smooth energy, differentiated by Implicit(): for others none is "
            f"known. {_ADVICE}"
        )
    mu, bend = energy.f.strong_convexity(x), energy.f.hessian_lipschitz(x)
    if bend is None or not bool((torch.as_tensor(mu) > 0).all()):
        lacks = "a Lipschitz constant of the Hessian" if bend is None else "strong convexity"
        raise ValueError(f"the bound needs {lacks}, which the terms do not declare. {_ADVICE}")
    one = x.new_ones(len(x))
    return like(mu, x) * one, like(bend, x) * one


def _mixed_norm(equation: Z, parameters: Sequence[Tensor]) -> Tensor:
    """|d equation / dθ|, by the smaller of its two sides written out."""
    with torch.enable_grad():
        slope = torch.cat([part.flatten() for part in equation])
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
