"""Primal-dual splitting: Chambolle-Pock, and Condat-Vu for a smooth term."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import Scalar, axpy, difference, eps, larger, norm_parts, settled
from ..acceleration import Accelerated, Acceleration, Halpern, Plain, Rebalanced
from ..acceleration.base import mix
from ..operators.base import Operator, lanczos_norm
from ..problem import Problem
from ..terms.base import Proximable, Smooth, Term
from ..terms.norms import L1
from ..terms.sets import L2Ball
from ..terms.total_variation import TotalVariation
from .base import Solver, Z
from .preconditioner import diagonal_steps
from .steps import below, chosen, continuous, convex, lipschitz, positive, weak_convexity

if TYPE_CHECKING:
    from ..kernels.rof import ROF

_MARGIN = 0.95  # of the limit: strictly below, so that T depends on all of z
_NOISE = 1e-6  # relative, of what rounding may add to an iterate


@dataclass(frozen=True, eq=False)
class PrimalDual(Solver):
    """min f(x) + g(x) + sum h_i(K_i x), dual first, z = (x, x_bar, y_1, ...):

    y_i'   = prox_{sigma h_i*}(y_i + sigma K_i x_bar)
    x'     = prox_{tau g}(x - tau (grad f(x) + sum K_i* y_i'))
    x_bar' = 2 x' - x

    Converges for 1/tau - sigma |K|^2 >= L/2, K = (K_1, ...) (tau sigma |K|^2 < 1 without f). A
    smooth term whose prox is known takes g's place where there is no g. Weakly convex terms are
    admitted where sigma > rho of every h and tau < 1 / rho of g; with an energy that is convex as a
    whole it converges [4], else to a stationary point, if at all.

    [1] Chambolle, Pock. A first-order primal-dual algorithm for convex problems. JMIV, 2011.
    [2] Condat. A primal-dual splitting method for convex optimization. JOTA, 2013. Vu, 2013.
    [3] Pock, Chambolle. Diagonal preconditioning for first order primal-dual algorithms. 2011.
    [4] Mollenhoff, Strekalovskiy, Moeller, Cremers. The primal-dual hybrid gradient method for
        semiconvex splittings. SIIMS, 2015.
    """

    step_size: Scalar | None = None  # tau
    # sigma; prepared: one for each h, too
    dual_step_size: Scalar | tuple[Tensor, ...] | None = None
    preconditioned: bool = False  # a step for each coordinate, from K's rows and columns [3]

    batched = ("step_size", "dual_step_size")

    def check(self, problem: Problem) -> None:
        for h in problem.h:
            if not isinstance(h.outer, Proximable):
                raise TypeError(
                    "PrimalDual needs the prox of every composed term, got "
                    f"{type(h.outer).__name__}."
                )

    @staticmethod
    def split(problem: Problem) -> tuple[Smooth | None, Proximable | None]:
        """(the term handled by its gradient, the term handled by its prox)."""
        if problem.g is None and isinstance(problem.f, Proximable):
            return None, problem.f
        return problem.f, problem.g

    def prepare(self, problem: Problem, x0: Tensor) -> PrimalDual:
        smooth, proximal = self.split(problem)
        square = self._square(problem, x0)
        L = 0.0 if smooth is None else lipschitz(smooth, x0)
        tau, sigma = self.step_size, self.dual_step_size
        chosen("step_size", tau, proximal)
        for h in problem.h:
            chosen("dual_step_size", sigma, h.outer)
        rho, own = self._weak_convexity(problem, x0)
        if self.preconditioned:
            if bool(torch.as_tensor(larger(rho, own) > 0).any()):
                raise ValueError(
                    "PrimalDual(preconditioned=True) sets a step for each coordinate, which does "
                    "not suit weakly convex terms. Leave preconditioned out."
                )
            if tau is not None or sigma is not None:
                raise ValueError(
                    "PrimalDual sets the steps itself with preconditioned=True: give none."
                )
            tau, sigma = diagonal_steps(problem, proximal, x0, L, _MARGIN)
            return replace(self, step_size=tau, dual_step_size=sigma)
        assert not isinstance(sigma, tuple), "prepared already"
        if tau is not None:
            tau = positive("step_size", tau, x0)
            if smooth is not None:
                below("step_size", tau, 2 / L, "2 / L")
            continuous("step_size", tau, own, proximal)
        if sigma is not None:
            sigma = positive("dual_step_size", sigma, x0)
        elif tau is not None:
            sigma = _MARGIN * (1 / tau - L / 2) / square
        else:
            sigma = larger(self._dual_step(problem, x0, square, L), 2 * rho)
        if bool(torch.as_tensor(sigma <= rho).any()):
            raise ValueError(
                f"dual_step_size = {float(torch.as_tensor(sigma).min()):.6g} cannot converge: it "
                f"must be above {float(torch.as_tensor(rho).max()):.6g}, the weak convexity of the "
                "composed terms. Leave it and step_size out to have them set from the problem."
            )
        if tau is None:
            tau = _MARGIN / larger(sigma * square + L / 2, own)
        limit = "1 / (dual_step_size |K|^2 + L / 2)"
        below("step_size", tau, 1 / (sigma * square + L / 2), limit)
        return replace(self, step_size=tau, dual_step_size=sigma)

    def _weak_convexity(self, problem: Problem, x0: Tensor) -> tuple[Scalar, Scalar]:
        """Of the composed terms, whose prox is taken with step 1 / sigma, and of g's place."""
        rhos = [weak_convexity(term, image) for term, image in self._bent(problem, x0)]
        return reduce(larger, rhos, 0.0), weak_convexity(self.split(problem)[1], x0)

    @staticmethod
    def _bent(problem: Problem, x: Tensor) -> list[tuple[Proximable, Tensor]]:
        """The composed terms that declare a convexity of their own, with what they see of x."""
        bent = (h for h in problem.h if type(h.outer).strong_convexity is not Term.strong_convexity)
        return [(h.outer, h.operator(x)) for h in bent]

    @staticmethod
    def _square(problem: Problem, x: Tensor) -> Scalar:
        """|K|^2, at most the sum of the |K_i|^2, which does where all are known at no cost; 1 where
        there is no K, or K = 0."""
        operators = [h.operator for h in problem.h]
        if len(operators) > 1 and any(type(k).norm is Operator.norm for k in operators):
            square = lanczos_norm(x, *operators) ** 2
        else:
            square = sum((k.norm(x) ** 2 for k in operators), 0.0)
        if isinstance(square, Tensor):
            return torch.where(square > 0, square, 1.0)
        return square or 1.0

    def _dual_step(self, problem: Problem, x0: Tensor, square: Scalar, L: Scalar) -> Scalar:
        """A balance of the two steps that suits the scale of the problem; any balance converges."""
        if self.split(problem)[0] is not None:
            return L / square
        mu = self.strong_convexity(problem, x0)
        if bool(torch.as_tensor(mu > 0).all()):
            return 10 * _MARGIN * mu / square  # tau = 0.1 / mu
        return square**-0.5

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return (x0, x0, *(h.rest(x0) for h in problem.h))

    @property
    def steps(self) -> tuple[Scalar, Scalar | tuple[Tensor, ...]]:
        assert self.step_size is not None and self.dual_step_size is not None, "not prepared"
        return self.step_size, self.dual_step_size

    def kernel(self, problem: Problem, z: Z) -> ROF | None:
        from ..kernels.rof import ROF  # compiled when first used

        tau, sigma = self.steps
        return None if isinstance(sigma, tuple) else ROF.of(problem, (tau, sigma), z)

    def step(self, problem: Problem, z: Z) -> Z:
        return self.sweep(problem, z, *self.steps, 1.0)

    def sweep(
        self, problem: Problem, z: Z, tau: Scalar, sigma: Scalar | tuple[Tensor, ...], theta: Scalar
    ) -> Z:
        """One dual and one primal update with the given steps; x_bar' = x' + theta (x' - x)."""
        x, x_bar, *ys = z
        ys = self._dual(problem, ys, x_bar, sigma)
        new = self._primal(problem, x, ys, tau)
        x_bar = axpy(theta, new - x, new)
        return (new, x_bar, *ys)

    def averaged(self, problem: Problem, z: Z) -> Z:
        """The same two updates, primal first: x' from (x, y), then y' from (y, 2x' - x); x_bar is
        not read."""
        (x, _, *ys), (tau, sigma) = z, self.steps
        new = self._primal(problem, x, ys, tau)
        return (new, new, *self._dual(problem, ys, torch.lerp(x, new, 2.0), sigma))

    def relaxed(self, problem: Problem, z: Z, rho: Scalar) -> Z:
        (t, _, *new), (x, _, *old) = self.averaged(problem, z), z
        x, *ys = mix(rho, (t, *new), (x, *old))
        return (x, x, *ys)

    @staticmethod
    def _dual(
        problem: Problem, ys: list[Tensor], x_bar: Tensor, sigma: Scalar | tuple[Tensor, ...]
    ) -> list[Tensor]:
        sigmas = sigma if isinstance(sigma, tuple) else (sigma,) * len(ys)
        return [h.ascend(y, x_bar, s) for h, y, s in zip(problem.h, ys, sigmas, strict=True)]

    def _primal(self, problem: Problem, x: Tensor, ys: list[Tensor], tau: Scalar) -> Tensor:
        smooth, proximal = self.split(problem)
        slope = problem.pull(x, ys)
        if smooth is not None:
            slope = slope + smooth.grad(x)
        forward = axpy(-tau, slope, x)
        return forward if proximal is None else proximal.prox(forward, tau)

    def dual(self, problem: Problem, z: Z) -> Z:
        return z[2:]

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        smooth, (tau, sigma) = self.split(problem)[0], self.steps
        if smooth is None:
            return 1.0
        if isinstance(sigma, tuple):
            return 0.0  # not worked out for a step for each coordinate
        return 1 - lipschitz(smooth, x) / 2 / (1 / tau - sigma * self._square(problem, x))

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        return (x, x, *y)

    def rebalanced(self, problem: Problem, balance: Tensor) -> PrimalDual:
        tau, sigma = self.steps
        if self.split(problem)[0] is not None or isinstance(sigma, tuple):
            return self  # tau is bound by L too, or the steps are balanced already
        return replace(self, step_size=tau * balance, dual_step_size=sigma / balance)

    def balance(self, problem: Problem, z: Z, before: Z) -> Tensor:
        """|dx| / |dy|, measured with the prepared steps: sqrt(sigma / tau) |dx| / |dy|. Steps carry
        the rounding of the one over to the other: so near |x| / |y| that it stays below _NOISE.
        """
        tau, sigma = self.steps
        if isinstance(sigma, tuple) or not problem.h:
            return super().balance(problem, z, before)
        (dx, x), (dy, y) = _path(z[:1], before[:1]), _path(z[2:], before[2:])
        units = torch.as_tensor(sigma / tau, dtype=dx.dtype, device=dx.device).sqrt()
        ratio, sizes, most = units * dx / dy, units * x / y, _NOISE / eps(dx)
        lost = settled(dx, x) | settled(dy, y)
        return ratio.clamp(sizes / most, sizes * most).masked_fill(lost, torch.nan)

    def strong_convexity(self, problem: Problem, x: Tensor) -> Scalar:
        """mu of the term handled by its prox."""
        term = self.split(problem)[1]
        return 0.0 if term is None else term.strong_convexity(x)

    def curvature(self, problem: Problem, z: Z) -> Tensor | None:  # -> (B,)
        """What does for mu near z, of a constraint whose normals turn: the multiplier of a ball."""
        term = self.split(problem)[1]
        if not isinstance(term, L2Ball):
            return None
        return term.multiplier(problem.pull(z[0], z[2:])) if problem.h else None

    def _curved(self, problem: Problem) -> bool:
        """Whether a smooth term is handled by its prox: it damps the rotations of the steps, which
        else only restarts do."""
        terms = (self.split(problem)[1], *(h.outer for h in problem.h))
        return any(isinstance(term, Smooth) for term in terms)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        own = (self.split(problem)[1], x0)
        if not all(convex(*seen) for seen in (own, *self._bent(problem, x0))):
            return Plain()  # anchors and growing steps ask for a monotone operator
        if self.split(problem)[0] is not None:
            return Plain()  # T is hardly more than averaged: little to gain from anchors
        if self.preconditioned or tol < 1e-6:
            return Halpern()  # faster in the end, on TV of photographs from a gap of 1e-6 on
        mu = self.strong_convexity(problem, x0)
        if not bool(torch.as_tensor(mu > 0).all()) and not _tight(problem, x0):
            return Rebalanced() if self._curved(problem) else Halpern()
        separable = all(isinstance(h.outer, L1) for h in problem.h)
        return Accelerated(gamma=0.125, first=0.4) if separable else Accelerated()


def _path(z: Z, before: Z) -> tuple[Tensor, Tensor]:  # -> (B,), (B,)
    """Its length, and how far from 0 it lies."""
    far = torch.maximum(norm_parts(z), norm_parts(before))
    return norm_parts(difference(z, before)), far


def _tight(problem: Problem, x: Tensor) -> bool:
    """Whether the minimiser lies on the sphere of a ball: total variation alone, and no constant
    image inside."""
    ball, dims = problem.g, [h.dims for h in problem.h if isinstance(h, TotalVariation)]
    if not isinstance(ball, L2Ball) or len(dims) != len(problem.h) or not dims:
        return False
    axes = tuple(range(-min(dims), 0))
    constant = torch.as_tensor(ball.center).to(x).expand_as(x).mean(axes, keepdim=True)
    return bool(ball.value(constant.expand_as(x)).isinf().all())
