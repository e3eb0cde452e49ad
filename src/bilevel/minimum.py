"""minimum: the least value of an energy, differentiable by the envelope theorem."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor

from ._autocast import full_precision
from ._broadcast import inner
from ._tangents import carried
from .acceleration import Acceleration
from .argmin import differentiated
from .checks import as_problem
from .differentiation.base import Strategy
from .differentiation.certificate import Certificate, certified
from .differentiation.stationary import stationary
from .errors import OnFail
from .operators.base import Identity
from .problem import Problem
from .solvers.base import Solver, Z
from .solvers.steps import convex, weak_convexity
from .terms.base import Composed, Term
from .terms.composition import Composition, named
from .terms.envelopes import MoreauEnvelope


def minimum(
    energy: Problem | Term,
    *,
    x0: Tensor | None = None,
    solver: Solver | None = None,
    acceleration: Acceleration | None = None,
    diff: Strategy | None = None,
    tol: float | None = None,
    max_iter: int = 20_000,
    max_time: float | None = None,
    on_fail: OnFail = "raise",
    report: Certificate | None = None,
) -> Tensor:  # (B,)
    """p(θ) = min over x of E(x, θ), one number a sample, differentiable with respect to every
    tensor that the energy was built from.

    dp/dθ = ∂L/∂θ at the solution x and its duals y, both held fixed (envelope theorem): no adjoint
    is solved, and x need not be unique. L is the augmented Lagrangian

        L(x, y, θ) = f(x) + sum_i env h_i(K_i x + y_i) - |y_i|^2 / 2,
        env h(v) = min over u of h(u) + |u - v|^2 / 2

    with g among the h_i, K = I: finite, and differentiable in θ where E(x, θ) is not, as for
    constraints that move and data at a kink. Its second derivative goes through that of x and y,
    with `diff` as in argmin; the third is refused. Other options: as argmin's.

    [1] Danskin. The theory of max-min. 1967. Bonnans, Shapiro. Perturbation analysis of
    optimization problems. 2000.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    >>> value = bl.minimum(bl.LeastSquares(y) + bl.L2Ball(1.0))  # half the squared distance
    >>> value.detach()
    tensor([8.], dtype=torch.float64)
    >>> torch.autograd.grad(value.sum(), y)[0]  # y - projection
    tensor([[2.4000, 3.2000]], dtype=torch.float64)
    """
    if carried():
        raise RuntimeError(
            "minimum has no forward-mode derivative. Use torch.autograd.grad, which costs no more: "
            "there is one number a sample, and no adjoint to solve."
        )
    f = as_problem(energy).f
    if f is not None and not f.potential:
        raise TypeError(
            "minimum needs an energy with a value, and behind a VectorField stands none. Its "
            "equilibrium is found by argmin."
        )
    with full_precision():
        fixpoint, z, certificate = differentiated(
            energy, x0, solver, acceleration, diff, tol, max_iter, max_time, on_fail, report
        )
        x, y = fixpoint.primal(z), fixpoint.dual(z)
        if x.requires_grad:
            x = certified(x, certificate)
        return _saddle_value(fixpoint.problem, x, y)


def _saddle_value(problem: Problem, x: Tensor, y: Z) -> Tensor:  # -> (B,)
    """L(x, y) = f(x) + sum_i min_u h_i(u) + <y_i, K_i x - u> + |K_i x - u|^2 / 2 at a solution x
    with its duals y, held fixed to first order; with g, where there is one, as h_0, and K_0 = I.
    """
    h = problem.h
    if problem.g is not None:
        h, y = (Composition(problem.g, Identity()), *h), (-problem.slope(x, y), *y)
    if any(part.requires_grad for part in (x, *y)):
        x, *y = stationary((x, *y))  # type: ignore[assignment]
    parts = [_augmented(h_i, x, y_i) for h_i, y_i in zip(h, y, strict=True)]
    if problem.f is not None:
        parts.append(problem.f.value(x))
    return reduce(Tensor.add, parts)


def _augmented(h: Composed, x: Tensor, y: Tensor) -> Tensor:  # -> (B,)
    """min over u of h(u) + <y, Kx - u> + |Kx - u|^2 / 2s = envelope of h at (Kx + s y) - s/2 |y|^2.

    s = 1, less for a weakly convex h.
    """
    image = h.operator(x)
    rho = float(torch.as_tensor(weak_convexity(h.outer, image)).max())
    if h.outer.tuned_by_step or not (rho or convex(h.outer, image)):
        raise TypeError(
            f"minimum needs terms with a value and a continuous prox, which {named(h.outer)} has "
            "not. Its minimiser is found by argmin."
        )
    s = min(1.0, 0.5 / rho) if rho else 1.0
    return MoreauEnvelope(h.outer, s).value(image + s * y) - s / 2 * inner(y, y)
