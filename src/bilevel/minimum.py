"""minimum: the least value of an energy, differentiable by the envelope theorem."""

from __future__ import annotations

from torch import Tensor

from ._autocast import full_precision
from ._compiling import eager
from ._tangents import carried
from .acceleration import Acceleration
from .argmin import differentiated
from .checks import Options, as_problem
from .differentiation.base import Strategy
from .differentiation.certificate import Certificate, certified
from .differentiation.stationary import stationary
from .errors import OnFail
from .lagrangian import augmented_lagrangian, saddle_point
from .problem import Problem
from .solvers.base import Solver
from .terms.base import Term


@eager
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
        options = Options(solver, acceleration, diff, tol, max_iter, max_time, on_fail, report)
        fixpoint, z, certificate = differentiated(energy, x0, options)
        x, y = fixpoint.primal(z), fixpoint.dual(z)
        if x.requires_grad:
            x = certified(x, certificate)
        x, *y = saddle_point(fixpoint.problem, x, y)
        if any(part.requires_grad for part in (x, *y)):
            x, *y = stationary((x, *y))
        return augmented_lagrangian(fixpoint.problem, x, tuple(y))
