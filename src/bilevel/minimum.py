"""minimum: the least value of an energy, differentiable by the envelope theorem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from ._autocast import full_precision
from ._compiling import eager
from ._tangents import carried, constant
from .acceleration import Acceleration
from .argmin import differentiated
from .checks import Options, as_problem
from .differentiation.base import Strategy
from .differentiation.certificate import Certificate, certified
from .differentiation.envelope import watched
from .differentiation.noise import noise
from .differentiation.probes import rms
from .differentiation.stationary import stationary
from .errors import OnFail
from .fixpoint import Fixpoint
from .iteration.driver import Run
from .lagrangian import augmented_lagrangian, saddle_point
from .problem import Problem
from .solvers.base import Solver, Z
from .solvers.external import External
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
    with `diff` as in argmin; the third is refused. Where several solutions or duals, of a game with
    ties say, give several ∂L/∂θ, p has directional derivatives only, and the gradient is that of
    one: `hypergradient(..., probe=True)` tells. Other options: as argmin's.

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
        fixpoint, z, run = differentiated(energy, x0, options)
        point = (fixpoint.primal(z), *fixpoint.dual(z))
        if point[0].requires_grad:
            point = (certified(point[0], run.certificate), *point[1:])
        value = _lagrangian(fixpoint.problem, point)
        if not value.requires_grad or isinstance(fixpoint.solver, External):
            return value  # external solvers end where they end, whatever the start
        return watched(value, _elsewhere(run, fixpoint, tuple(part.detach() for part in z), value))


def _lagrangian(problem: Problem, point: Z) -> Tensor:  # (x, y_1, ...) -> (B,)
    point = saddle_point(problem, point[0], point[1:])
    if any(part.requires_grad for part in point):
        point = stationary(point)
    return augmented_lagrangian(problem, point[0], point[1:])


def _elsewhere(run: Run, fixpoint: Fixpoint, z: Z, value: Tensor) -> Callable[[int], Tensor]:
    """What L is at a solution found from another start, less the value: 0 as a number, and in its
    derivative where there is but one."""
    again = replace(run, on_fail="ignore", max_time=None, certificate=Certificate())

    def lagrangian(z: Z) -> Tensor:
        return _lagrangian(fixpoint.problem, (fixpoint.primal(z), *fixpoint.dual(z)))

    def difference(seed: int) -> Tensor:
        with constant():
            start = tuple(part + rms(part) * noise(part, seed) for part in z)
            other = again(fixpoint, start)
            height = lagrangian(start).abs() + value.abs()
        apart = lagrangian(other) - value
        near = apart.abs() <= 1e-3 * height  # else another valley
        return torch.where(near & torch.as_tensor(again.certificate.converged), apart, 0.0)

    return difference
