"""The alternating direction method of multipliers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from .._broadcast import Scalar, axpy, expand
from ..acceleration import Acceleration, OverRelaxation, Plain
from ..problem import Problem
from ..terms.base import Proximable, Smooth
from ..terms.composition import SmoothComposition, SmoothSum
from ..terms.smooth import LeastSquares
from .base import Solver, Z, names, refuse
from .forms import Form, form
from .steps import lipschitz, positive

_MARGIN = 0.95  # of the limit of a linearised step


@dataclass(frozen=True, eq=False)
class ADMM(Solver):
    """min f(x) + g(x) + sum h_i(K_i x), split as h_i(u_i), u_i = K_i x; z = (x, v_1, ...),
    y_i = prox_{rho h_i*}(rho v_i) the multipliers, u_i = v_i - y_i / rho:

    x'   = argmin f(x) + rho/2 sum |K_i x - 2 u_i + v_i|^2
    v_i' = K_i x' + y_i / rho

    Converges for every rho > 0, which sets the speed. The x-update is exact where f is quadratic
    without a g and its system can be solved: by division, by cosine transforms (LeastSquares and
    the Gradient of total variation), or by one Cholesky factor for up to 1500 unknowns. Else it is
    linearised, x' = prox_{tau g}(x - tau G), G its gradient, for 1 / tau >= L / 2 + rho |K|^2.

    [1] Boyd et al. Distributed optimization and statistical learning via ADMM. 2011.
    [2] Eckstein, Bertsekas. On the Douglas-Rachford splitting method. Math. Programming, 1992.
    [3] Goldstein, Osher. The split Bregman method for L1-regularized problems. SIIMS, 2009.
    """

    penalty: Scalar | None = None  # rho
    exact: Form | None = None  # the system of an exact x-update; set by prepare
    step_size: Scalar | None = None  # tau of a linearised one; set by prepare

    batched = ("penalty", "step_size")

    def check(self, problem: Problem) -> None:
        if not problem.h:
            instead = "Use ForwardBackward()." if problem.f is not None else "Use DirectProx()."
            raise refuse(self, "a composed term h(Kx)", names(problem.terms), instead)
        for h in problem.h:
            if not isinstance(h.outer, Proximable):
                got = type(h.outer).__name__
                raise refuse(self, "the prox of every composed term", got, "Give it a prox.")

    def prepare(self, problem: Problem, x0: Tensor) -> ADMM:
        if self.step_size is not None:
            raise ValueError("ADMM sets the step of its x-update itself: give the penalty only.")
        norms = [torch.as_tensor(h.operator.norm(x0)).to(x0) for h in problem.h]
        square = reduce(Tensor.add, [norm.square() for norm in norms])
        square = torch.where(square > 0, square, 1.0)
        L = 0.0 if problem.f is None else lipschitz(problem.f, x0)
        rho = self.penalty
        rho = self._balance(problem, x0) / square if rho is None else positive("penalty", rho, x0)
        quadratic = problem.f is None or problem.f.quadratic
        if quadratic and problem.g is None:
            exact = form(self._system(problem, x0, rho), x0)
            if exact is not None:
                return replace(self, penalty=rho, exact=exact)
        return replace(self, penalty=rho, step_size=_MARGIN / (L / 2 + rho * square))

    @staticmethod
    def _balance(problem: Problem, x: Tensor) -> Scalar:
        """rho |K|^2 that did well in trials: 10 L where f is strongly convex, else L."""
        if problem.f is None:
            return 1.0
        L, mu = (
            torch.as_tensor(v).to(x)
            for v in (lipschitz(problem.f, x), problem.f.strong_convexity(x))
        )
        return torch.where(mu > 0, 10 * L, L)

    @staticmethod
    def _system(problem: Problem, x: Tensor, rho: Scalar) -> Smooth:
        """f + rho/2 sum |K_i x|^2."""
        terms: list[Smooth] = []
        if problem.f is not None:
            terms += problem.f.terms if isinstance(problem.f, SmoothSum) else (problem.f,)
        for h in problem.h:
            weight = expand(rho, h.operator(x))
            terms.append(SmoothComposition(LeastSquares(weight=weight), h.operator))
        return SmoothSum(tuple(terms))

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return (x0, *(h.operator(x0) for h in problem.h))

    def step(self, problem: Problem, z: Z) -> Z:
        (x, *vs), rho = z, self.penalty
        assert rho is not None, "not prepared"
        ys = self.dual(problem, z)
        # the gradient of the x-update's objective at x
        pulls = [
            h.operator.adjoint(expand(rho, v) * (h.operator(x) - v) + 2 * y)
            for h, v, y in zip(problem.h, vs, ys, strict=True)
        ]
        if problem.f is not None:
            pulls.append(problem.f.grad(x))
        gradient = reduce(Tensor.add, pulls)
        if self.exact is not None:
            x = x - self.exact.solve(gradient)
        else:
            tau = self.step_size
            assert tau is not None
            x = axpy(-tau, gradient, x)
            x = x if problem.g is None else problem.g.prox(x, tau)
        return self.assemble(problem, x, ys)

    def dual(self, problem: Problem, z: Z) -> Z:
        rho = self.penalty
        assert rho is not None
        pairs = zip(problem.h, z[1:], strict=True)
        return tuple(h.outer.prox_conjugate(expand(rho, v) * v, rho) for h, v in pairs)

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        rho = self.penalty
        assert rho is not None
        pairs = zip(problem.h, y, strict=True)
        return (x, *(h.operator(x) + y_i / expand(rho, y_i) for h, y_i in pairs))

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        return 0.0 if self.exact is None else 1.0

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain() if self.exact is None else OverRelaxation()

    def take(self, index: Tensor) -> ADMM:
        exact = None if self.exact is None else self.exact.take(index)
        return replace(super().take(index), exact=exact)
