"""The adjoint iterated beside the solution, for a loss that is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .._broadcast import Scalar, eps, expand, inner, norm_event, tiny
from .._tangents import carried, constant, depends, pushing
from ..fixpoint import Fixpoint
from ..lagrangian import augmented_lagrangian, saddle_point
from ..operators.base import Identity
from ..problem import Problem, relative_change
from ..solvers.base import Solver, Z
from ..solvers.primal_dual import PrimalDual
from ..terms.base import Composed, Proximable, Smooth
from ..terms.composition import Composition
from ..terms.linear import Linear
from . import probes
from .base import Strategy

if TYPE_CHECKING:
    from ..acceleration import Acceleration
    from ..iteration.driver import Run
    from .certificate import Certificate


@dataclass(frozen=True, eq=False)
class Piggyback(Strategy):
    """d loss(x(θ)) / dθ = ∂θ <∇L(z, θ), U>, U iterated beside z: U' = dT(z) U for the energy tilted
    by t loss(x), t = 0.

    L is the augmented Lagrangian, whose Hessian is symmetric: U, the tangent of the solution in t,
    is the adjoint. It goes through the run's own steps, with its momentum, step sizes and restarts,
    and the run ends when both z and U are settled to tol. For PrimalDual(): Chambolle-Pock and
    Condat-Vu. Memory O(1), no linear solver; a step costs about three of T. First derivatives only,
    and only of this loss: backward refuses another gradient than a multiple of its.

    Fails, as the iterates' derivatives do, where T does not contract around the solution: the run
    then ends unconverged, and says so.

    [1] Chambolle, Pock. Learning consistent discretizations of the total variation. SIIMS, 2021.
    [2] Bogensperger, Chambolle, Pock. Convergence of a piggyback-style method for the
        differentiation of solutions of standard saddle-point problems. SIMODS, 2022.
    """

    loss: Smooth  # a term of x: LeastSquares(clean), say

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Smooth):
            raise TypeError(
                f"Piggyback needs the loss as a smooth term of x, got {self.loss!r}. For example "
                "Piggyback(LeastSquares(clean)); a function is wrapped as Potential(function)."
            )

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        solver, problem = fixpoint.solver, fixpoint.problem
        if not isinstance(solver, PrimalDual) or solver.preconditioned:
            raise TypeError(
                f"Piggyback runs beside PrimalDual() with two steps, got {solver}. Pass "
                "solver=PrimalDual(), or use FixedPoint()."
            )
        if carried():
            raise RuntimeError(
                "Piggyback carries tangents itself, and has none to give inside "
                "forward_ad.dual_level(). Use FixedPoint()."
            )
        both = _Both(problem, Beside(solver, self.loss))
        with constant():
            z0 = tuple(part.contiguous() for part in z0)  # carries tangents: no memory twice
            state = run(both, (*z0, *(torch.zeros_like(part) for part in z0)))
            z, u = _halves(state)
            t, pushed = _halves(both.T(state))
            run.certificate.adjoint_residual = relative_change(u, pushed)
            run.certificate.adjoint_iterations = int(run.certificate.iterations.amax())  # type: ignore[union-attr]
        if not depends(fixpoint.T(z)):
            return z
        x, y = fixpoint.primal(z), fixpoint.dual(z)
        with constant():
            slope = self.loss.grad(x)
            adjoint = _adjoint(problem, slope, x, y, (u[0], *u[2:]))
        point = tuple(part.detach().requires_grad_() for part in saddle_point(problem, x, y))
        with torch.enable_grad():
            value = augmented_lagrangian(problem, point[0], point[1:]).sum()
            rest = torch.autograd.grad(value, point, create_graph=True)
        beside = TangentSolve(both, state, slope, adjoint, run.certificate)
        return (x + _Weigh.apply(beside, *rest), *z[1:])


def _halves(state: Z) -> tuple[Z, Z]:
    half = len(state) // 2
    return state[:half], state[half:]


def _adjoint(problem: Problem, pulled: Tensor, x: Tensor, y: Z, u: Z) -> Z:
    """The tangent of the saddle point: u, with that of g's dual."""
    if problem.g is None:
        return u
    with pushing(), forward_ad.dual_level():
        moved = tuple(forward_ad.make_dual(a, b) for a, b in zip((x, *y), u, strict=True))
        slope = forward_ad.unpack_dual(problem.slope(moved[0], moved[1:])).tangent
    slope = torch.zeros_like(x) if slope is None else slope
    return (u[0], -slope - pulled, *u[1:])


class _Both(Fixpoint):
    """(z, U) as one fixed point; samples are not taken out, as the loss may not be indexed."""

    def take(self, index: Tensor, z: Z) -> None:
        return None


@dataclass(frozen=True, eq=False)
class Beside(Solver):
    """PrimalDual on (z, U): T(z), and its tangent along U for the energy tilted by the loss."""

    inner: PrimalDual
    loss: Smooth

    def check(self, problem: Problem) -> None:
        self.inner.check(problem)

    def prepare(self, problem: Problem, x0: Tensor) -> Beside:
        return replace(self, inner=self.inner.prepare(problem, x0))

    def _push(self, problem: Problem, state: Z, step: Callable[[Problem, Z], Z]) -> Z:
        """(step(z), its tangent along U): the tilt <t grad loss, x> comes as a dual variable that
        does not move."""
        z, u = _halves(state)
        x = self.inner.primal(problem, z)
        place = 2 + sum(isinstance(term, Composed) for term in problem.terms)
        with pushing(), forward_ad.dual_level():
            duals = [forward_ad.make_dual(a, b) for a, b in zip(z, u, strict=True)]
            tilt = forward_ad.make_dual(torch.zeros_like(x), self.loss.grad(x))
            tilted = Problem((*problem.terms, Composition(Linear(tilt), Identity())))
            t = list(step(tilted, (*duals[:place], tilt, *duals[place:])))
            del t[place]
            parts = [forward_ad.unpack_dual(part) for part in t]
        tangents = (
            torch.zeros_like(value) if tangent is None else tangent for value, tangent in parts
        )
        return (*(value for value, _ in parts), *tangents)

    def step(self, problem: Problem, z: Z) -> Z:
        return self._push(problem, z, self.inner.step)

    def sweep(self, problem: Problem, z: Z, tau: Any, sigma: Any, theta: Any) -> Z:
        return self._push(problem, z, lambda p, v: self.inner.sweep(p, v, tau, sigma, theta))

    def averaged(self, problem: Problem, z: Z) -> Z:
        return self._push(problem, z, self.inner.averaged)

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return self.inner.primal(problem, _halves(z)[0])

    def dual(self, problem: Problem, z: Z) -> Z:
        return self.inner.dual(problem, _halves(z)[0])

    def residual(self, problem: Problem, z: Z, t: Z, floor: Scalar = 0.0) -> Tensor:
        (a, u), (b, v) = _halves(z), _halves(t)
        return torch.maximum(relative_change(a, b, floor), relative_change(u, v))

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        return self.inner.reflection(problem, x)

    def rebalanced(self, problem: Problem, balance: Tensor) -> Beside:
        return replace(self, inner=self.inner.rebalanced(problem, balance))

    def balance(self, problem: Problem, z: Z, before: Z) -> Tensor:
        return self.inner.balance(problem, _halves(z)[0], _halves(before)[0])

    def split(self, problem: Problem) -> tuple[Smooth | None, Proximable | None]:
        return self.inner.split(problem)

    def strong_convexity(self, problem: Problem, x: Tensor) -> Scalar:
        return self.inner.strong_convexity(problem, x)

    def curvature(self, problem: Problem, z: Z) -> Tensor | None:
        return self.inner.curvature(problem, _halves(z)[0])

    @property
    def step_size(self) -> Any:
        return self.inner.step_size

    @property
    def dual_step_size(self) -> Any:
        return self.inner.dual_step_size

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return self.inner.acceleration(problem, x0, tol)


@dataclass(frozen=True, eq=False)
class TangentSolve:
    """The adjoint that was found beside the solution, and what a bound of its error asks for."""

    both: Fixpoint  # of (z, U)
    state: Z
    slope: Tensor  # of the loss that Piggyback was told
    adjoint: Z  # the tangent of the saddle point
    certificate: Certificate

    def factor(self, cotangent: Tensor) -> Tensor:  # -> (B,)
        """c of the gradient c slope that reaches the solution; refused where it is no multiple."""
        slope = self.slope
        factor = inner(cotangent, slope) / inner(slope, slope).clamp_min(tiny(slope))
        off = norm_event(cotangent - expand(factor, slope) * slope)  # type: ignore[operator]
        if bool((off > 1e4 * eps(slope) * norm_event(cotangent)).any()):
            worst = float((off / norm_event(cotangent).clamp_min(tiny(slope))).max())
            raise ValueError(
                "Piggyback was told another loss: the gradient that reaches the solution differs "
                f"from a multiple of its gradient by {worst:.1e}. Pass the loss that is "
                "differentiated, or use FixedPoint()."
            )
        return factor


class _Weigh(torch.autograd.Function):
    """0; a gradient c slope that reaches it goes on as c U, to the optimality conditions."""

    @staticmethod
    def forward(ctx: Any, beside: TangentSolve, *rest: Tensor) -> Tensor:
        ctx.beside = beside
        ctx.save_for_backward(*rest)
        return torch.zeros_like(beside.slope)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Any:  # type: ignore[override]
        rest: Z = ctx.saved_tensors
        probe = probes.active()
        if probe is not None:
            probe.tangents.append((ctx.beside, ctx.beside.factor(cotangent.detach()), rest))
        return (None, *_Factor.apply(cotangent, ctx.beside, *rest))  # type: ignore[misc]


class _Factor(torch.autograd.Function):
    """c U for the cotangent c slope. Takes the conditions as a formal input, to refuse a second
    derivative."""

    @staticmethod
    def forward(ctx: Any, cotangent: Tensor, beside: TangentSolve, *rest: Tensor) -> Any:
        factor = beside.factor(cotangent)
        return tuple(expand(factor, part) * part for part in beside.adjoint)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        raise RuntimeError(
            "a second derivative of a solution was asked for, but Piggyback gives first "
            "derivatives only. Pass diff=FixedPoint() to argmin."
        )
