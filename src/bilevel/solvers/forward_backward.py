"""Forward-backward splitting: proximal gradient, projected gradient, ISTA."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import Scalar, axpy, larger
from ..acceleration import Acceleration, Backtracking, Nesterov, Plain
from ..problem import Problem
from .base import Solver, Z, names, refuse
from .steps import LEAST, below, chosen, continuous, convex, lipschitz, positive, weak_convexity


@dataclass(frozen=True, eq=False)
class ForwardBackward(Solver):
    """min f(x) + g(x), f smooth, prox of g known: T(x) = prox_{tau g}(x - tau grad f(x)). Converges
    for tau < 2 / L.

    A weakly convex g needs tau < 1 / rho, too, and no other one that is not convex can be promised
    more than a stationary point, for tau < 1 / L; there is no momentum then [3].

    With a constraint set as g this is projected gradient; with Nesterov momentum, the default, it
    is FISTA.

    [1] Combettes, Wajs. Signal recovery by proximal forward-backward splitting. MMS, 2005.
    [2] Beck, Teboulle. A fast iterative shrinkage-thresholding algorithm. SIIMS, 2009.
    [3] Attouch, Bolte, Svaiter. Convergence of descent methods for semi-algebraic and tame
        problems. Math. Programming, 2013.
    """

    step_size: Scalar | None = None  # default 0.95 / L
    momentum: bool = True  # prepare clears it where step_size > 1 / L: Nesterov's would diverge

    batched = ("step_size",)

    def check(self, problem: Problem) -> None:
        if problem.f is None:
            raise refuse(
                self,
                "a smooth term f",
                names(problem.terms),
                "Use PrimalDual(), which needs only prox.",
            )
        if problem.h:
            raise refuse(
                self,
                "f + g without composed terms",
                names(problem.h),
                "Use PrimalDual(), which handles h(Kx).",
            )

    def prepare(self, problem: Problem, x0: Tensor) -> ForwardBackward:
        assert problem.f is not None
        chosen("step_size", self.step_size, problem.g)
        rho = weak_convexity(problem.g, x0)
        if self.step_size is None:
            return replace(self, step_size=0.95 / larger(lipschitz(problem.f, x0), rho))
        step = positive("step_size", self.step_size, x0)
        continuous("step_size", step, rho, problem.g)
        if not problem.f.lipschitz_known:
            return replace(self, step_size=step)
        L = lipschitz(problem.f, x0)
        below("step_size", step, 2 / L, "2 / L", least=LEAST)
        slow = bool(torch.as_tensor(step * L <= 1).all())
        return replace(self, step_size=step, momentum=self.momentum and slow)

    def step(self, problem: Problem, z: Z) -> Z:
        (x,), tau = z, self.step_size
        assert problem.f is not None and tau is not None
        forward = axpy(-tau, problem.f.grad(x), x)
        return (forward if problem.g is None else problem.g.prox(forward, tau),)

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        assert problem.f is not None and self.step_size is not None
        return 1 - self.step_size * lipschitz(problem.f, x) / 2

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        assert problem.f is not None
        if not problem.f.potential:
            return Plain()
        if not problem.f.lipschitz_known:
            return Backtracking()
        return Nesterov() if self.momentum and convex(problem.g, x0) else Plain()
