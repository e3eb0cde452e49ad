"""To finish what a first-order method has brought near: Newton's method, or another solver's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import difference, eps, norm_event, tiny
from ..acceleration.base import Z, where
from ..differentiation.certificate import Certificate
from ..differentiation.inverse import Inverse
from ..differentiation.linear_solvers import GMRES, BiCGStab, LinearSolver
from ..differentiation.linearisation import DENSE, Linearisation
from ..fixpoint import Fixpoint
from ..solvers.forms import rough, worth

if TYPE_CHECKING:
    from .driver import Run

_BASIS = 2**25  # numbers that a GMRES basis may hold; beyond, short recurrences


def polish(fixpoint: Fixpoint, z: Z, tol: float, products: int) -> tuple[Z, Tensor]:
    """(z, residual) after a finish of the problem's own, where there is one, else `newton`."""
    kernel = fixpoint.kernel(z)
    if kernel is not None and kernel.small:
        z = fixpoint.T(kernel.finish(z))
        return z, fixpoint.change(z, fixpoint.T(z))
    if steps_worth(fixpoint, z) < torch.inf:
        z, residual = chord(fixpoint, z, tol)
        if bool((residual <= 10 * tol).all()):
            return z, residual
    return newton(fixpoint, z, tol, products)


def steps_worth(fixpoint: Fixpoint, z: Z) -> float:
    """How many steps cost as much as the factor that `chord` takes; inf where it cannot be."""
    problem = fixpoint.problem
    smooth = problem.f is not None and problem.g is None and not problem.h
    return worth(problem.f, fixpoint.primal(z)) if smooth else torch.inf  # type: ignore[arg-type]


def chord(fixpoint: Fixpoint, z: Z, tol: float) -> tuple[Z, Tensor]:
    """(z, residual) after steps x - H^-1 grad f(x), H the Hessian at the first x in float32, of
    each sample while a step is at most half the last [1]. H stays with the fixed point, for the
    derivative.

    [1] Kelley. Iterative methods for linear and nonlinear equations, ch. 5. 1995.
    """
    problem, solver, x = fixpoint.problem, fixpoint.solver, fixpoint.primal(z)
    f = problem.f
    assert f is not None
    H = rough(f, x)
    fixpoint.factor[:] = [H]
    d, rate = H.solve(f.grad(x)), torch.full_like(x[:, 0], 0.5)
    while bool((going := (rate <= 0.5) & (rate * norm_event(d) > tol * norm_event(x))).any()):
        x = x - d * going[:, None]
        following = H.solve(f.grad(x))
        rate = torch.where(going, norm_event(following) / norm_event(d), rate)
        d = torch.where(going[:, None], following, d)
    x = torch.where((rate <= 0.5)[:, None] & d.isfinite(), x - d, x)
    z = solver.assemble(problem, x, ())
    return z, fixpoint.change(z, fixpoint.T(z))


def newton(fixpoint: Fixpoint, z: Z, tol: float, products: int) -> tuple[Z, Tensor]:
    """(z, residual) after semismooth Newton steps z - M^-1 (z - T(z)), M = I - dT/dz at z, and a
    plain T step each.

    A sample keeps a step only where its residual at least halves; M may be singular (least-squares
    steps). `products` bounds the work: the products with M that all steps together may take, each
    about three times the work of T.
    """
    residual = fixpoint.change(z, fixpoint.T(z))
    while products > 0 and bool((residual > tol).any()):
        M = Linearisation(z, fixpoint.residual)
        newton = Inverse(M, _linear_solver(z, products))
        step = newton(M.flatten(M.residual).detach(), transposed=False)
        products -= max(step.iterations, 10)
        trial = fixpoint.T(difference(z, M.split(step.x)))
        new = fixpoint.change(trial, fixpoint.T(trial))
        goal = max(tol, 4 * eps(residual))  # a sample there stays, whatever the others need
        grown = (_size(trial) / _size(z)).clamp_min(1)  # far out, a relative change is small, or 0
        moves = new.clamp_min(eps(new)) * grown
        better = (moves <= residual / 2) & (residual > goal)  # NaN is not better
        if not bool(better.any()):
            break
        z, residual = where(better, trial, z), torch.where(better, new, residual)
    return z, residual


def by_points(run: Run, fixpoint: Fixpoint, z: Z, steps: int) -> tuple[Z, Tensor]:
    """(z, residual) after up to `steps` steps of the solver's Euclidean method from z.

    In logarithms a strategy that is worse by d dies like exp(-d k) and no more; a projection sets
    it to 0 at once.
    """
    problem, solver = fixpoint.problem, fixpoint.solver
    x, y = fixpoint.primal(z), fixpoint.dual(z)
    other = solver.euclidean().prepare(problem, x)  # type: ignore[union-attr]
    acceleration = other.acceleration(problem, x, run.tol)
    apart = replace(run, acceleration=acceleration, max_iter=steps, certificate=Certificate())
    there = Fixpoint(problem, other)
    end = apart(there, other.assemble(problem, x, y))
    z = solver.assemble(problem, there.primal(end), there.dual(end))
    return z, fixpoint.change(z, fixpoint.T(z))


def _size(z: Z) -> Tensor:  # -> (B,)
    return torch.stack([norm_event(part) for part in z]).amax(0).clamp_min(tiny(z[0]))


def _linear_solver(z: Z, products: int) -> LinearSolver | None:
    size = sum(part[0].numel() for part in z)
    tol = 1e-4 if z[0].dtype == torch.float64 else 1e-2
    if size <= DENSE:
        return None
    basis = min(products, 120)
    if size * len(z[0]) * basis <= _BASIS:
        return GMRES(tol=tol, max_iter=basis, basis=basis)
    return BiCGStab(tol=tol, max_iter=min(products, 300))
