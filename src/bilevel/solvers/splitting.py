"""Splittings that use each proximable term by its prox: Douglas-Rachford, and Davis-Yin with a
smooth term beside."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from ..acceleration import Acceleration, OverRelaxation
from ..operators.base import Identity
from ..problem import Problem
from ..terms.base import Proximable, Smooth, Weighted
from .base import Solver, Z, names, refuse
from .steps import LEAST, below, lipschitz, positive


def _ordered(a: Proximable, b: Proximable) -> tuple[Proximable, Proximable]:
    """A smooth term first, else a set: x is a point of the set then."""
    late = isinstance(b, Smooth) or (isinstance(a, Weighted) and not isinstance(b, Weighted))
    return (b, a) if late and not isinstance(a, Smooth) else (a, b)


@dataclass(frozen=True, eq=False)
class DouglasRachford(Solver):
    """min a(x) + b(x), the prox of both known: T(z) = z + prox_{tau b}(2x - z) - x with
    x = prox_{tau a}(z).

    A smooth term with a prox counts, and takes the part of a. Converges for every tau > 0, which
    sets the speed: by default 1 / sqrt(L mu) of a smooth a, 1 / L where mu = 0, else 1.

    [1] Lions, Mercier. Splitting algorithms for the sum of two nonlinear operators. SINUM, 1979.
    [2] Eckstein, Bertsekas. On the Douglas-Rachford splitting method. Math. Programming, 1992.
    """

    step_size: Scalar | None = None  # tau

    batched = ("step_size",)

    def check(self, problem: Problem) -> None:
        if len(problem.terms) != 2 or not all(isinstance(t, Proximable) for t in problem.terms):
            instead = "Use PrimalDual()."
            if problem.f is not None and (problem.g is not None or problem.h):
                instead = "Use DavisYin() or PrimalDual()."
            raise refuse(self, "two terms with a prox", names(problem.terms), instead)

    @staticmethod
    def _pair(problem: Problem) -> tuple[Proximable, Proximable]:
        a, b = problem.terms
        return _ordered(a, b)  # type: ignore[arg-type]

    def prepare(self, problem: Problem, x0: Tensor) -> DouglasRachford:
        if self.step_size is not None:
            return replace(self, step_size=positive("step_size", self.step_size, x0))
        a, _ = self._pair(problem)
        if not isinstance(a, Smooth):
            return replace(self, step_size=1.0)
        L, mu = (torch.as_tensor(v).to(x0) for v in (lipschitz(a, x0), a.strong_convexity(x0)))
        return replace(self, step_size=1 / torch.where(mu > 0, (L * mu).sqrt(), L))

    @property
    def _tau(self) -> Scalar:
        assert self.step_size is not None, "not prepared"
        return self.step_size

    def step(self, problem: Problem, z: Z) -> Z:
        (v,), (a, b) = z, self._pair(problem)
        x = a.prox(v, self._tau)
        return (v + b.prox(2 * x - v, self._tau) - x,)

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return self._pair(problem)[0].prox(z[0], self._tau)

    def dual(self, problem: Problem, z: Z) -> Z:
        """(z - x) / tau, in the subdifferential of a, or its negative, in that of b."""
        if not problem.h:
            return ()
        way = (z[0] - self.primal(problem, z)) / expand(self._tau, z[0])
        return (way if self._pair(problem)[0] is problem.h[0].outer else -way,)

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        a, _ = self._pair(problem)
        if isinstance(a, Smooth):
            pull = a.grad(x)
        else:
            pull = y[0] if a is problem.h[0].outer else -y[0]
        return (x + expand(self._tau, x) * pull,)

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        return 1.0

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return OverRelaxation(1.5)


@dataclass(frozen=True, eq=False)
class DavisYin(Solver):
    """min f(x) + a(x) + b(x), f smooth, the prox of a and b known:

    x = prox_{tau a}(z),   T(z) = z + prox_{tau b}(2x - z - tau grad f(x)) - x.

    Converges for tau < 2 / L; by default 0.95 / L. Without b it is forward-backward, without f
    Douglas-Rachford.

    [1] Davis, Yin. A three-operator splitting scheme and its optimization applications. 2017.
    """

    step_size: Scalar | None = None  # tau

    batched = ("step_size",)

    def check(self, problem: Problem) -> None:
        one = len(problem.h) == 1 and isinstance(problem.h[0].operator, Identity)
        if problem.f is None or problem.g is None or not one:
            instead = "Use PrimalDual()."
            if problem.f is not None and not problem.h:
                instead = "Use ForwardBackward()."
            elif problem.f is None and one:
                instead = "Use DouglasRachford()."
            got = names(problem.terms)
            raise refuse(self, "a smooth term and two terms with a prox", got, instead)

    def prepare(self, problem: Problem, x0: Tensor) -> DavisYin:
        assert problem.f is not None
        L = lipschitz(problem.f, x0)
        if self.step_size is None:
            return replace(self, step_size=0.95 / L)
        step = positive("step_size", self.step_size, x0)
        if problem.f.lipschitz_known:
            below("step_size", step, 2 / L, "2 / L", least=LEAST)
        return replace(self, step_size=step)

    @staticmethod
    def _pair(problem: Problem) -> tuple[Proximable, Proximable]:
        assert problem.g is not None
        return _ordered(problem.g, problem.h[0].outer)

    @property
    def _tau(self) -> Scalar:
        assert self.step_size is not None, "not prepared"
        return self.step_size

    def _slope(self, problem: Problem, x: Tensor) -> tuple[Tensor, Scalar]:
        assert problem.f is not None
        return problem.f.grad(x), expand(self._tau, x)

    def step(self, problem: Problem, z: Z) -> Z:
        (v,), x = z, self.primal(problem, z)
        slope, tau = self._slope(problem, x)
        second = self._pair(problem)[1].prox(2 * x - v - tau * slope, self._tau)
        return (v + second - x,)

    def primal(self, problem: Problem, z: Z) -> Tensor:
        return self._pair(problem)[0].prox(z[0], self._tau)

    def dual(self, problem: Problem, z: Z) -> Z:
        """(z - x) / tau is in the subdifferential of a; with that of b it adds to -grad f(x)."""
        x = self.primal(problem, z)
        slope, tau = self._slope(problem, x)
        first = (z[0] - x) / tau
        return (first if self._pair(problem)[0] is problem.h[0].outer else -slope - first,)

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        slope, tau = self._slope(problem, x)
        first = y[0] if self._pair(problem)[0] is problem.h[0].outer else -slope - y[0]
        return (x + tau * first,)

    def reflection(self, problem: Problem, x: Tensor) -> Scalar:
        assert problem.f is not None and self.step_size is not None
        return 1 - self.step_size * lipschitz(problem.f, x) / 2

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        room = float(torch.as_tensor(self.reflection(problem, x0)).min()) if len(x0) else 0.5
        return OverRelaxation(1 + min(0.5, room))
