"""Forward-backward for maps that are only monotone, such as games: look ahead, or look back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

from torch import Tensor

from .._broadcast import Scalar, expand
from ..acceleration import Acceleration, Plain
from ..problem import Problem
from .base import Solver, Z, names, refuse
from .steps import LEAST, below, lipschitz, positive


@dataclass(frozen=True, eq=False)
class _Monotone(Solver):
    """0 in F(x) + dg(x), F = grad f or a VectorField: what both methods share."""

    step_size: Scalar | None = None

    batched = ("step_size",)
    limit: ClassVar[float] = 1.0  # of step_size L

    def check(self, problem: Problem) -> None:
        if problem.f is None or problem.h:
            got = names(problem.h if problem.f is not None else problem.terms)
            raise refuse(
                self, "a VectorField or a smooth f, and at most one term with a prox", got,
                "Use PrimalDual().",
            )  # fmt: skip

    def prepare(self, problem: Problem, x0: Tensor) -> Self:
        assert problem.f is not None
        if self.step_size is None:
            return replace(self, step_size=0.9 * self.limit / lipschitz(problem.f, x0))
        step = positive("step_size", self.step_size, x0)
        if problem.f.lipschitz_known:
            below("step_size", step, self.limit / lipschitz(problem.f, x0), f"{self.limit} / L",
                  least=LEAST)  # fmt: skip
        return replace(self, step_size=step)

    def _move(self, problem: Problem, x: Tensor, pull: Tensor) -> Tensor:
        """prox_{tau g}(x - tau pull)"""
        assert self.step_size is not None, "not prepared"
        forward = x - expand(self.step_size, x) * pull
        return forward if problem.g is None else problem.g.prox(forward, self.step_size)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()


class ExtraGradient(_Monotone):
    """0 in F(x) + dg(x), F monotone: T(x) = prox_{tau g}(x - tau F(y)), y = prox_{tau g}(x - tau
    F(x)).

    Converges for tau < 1 / L, also where F is no gradient and not strongly monotone: saddle points,
    games, where forward-backward turns in circles. Two F a step. Without a Lipschitz constant the
    default step is 0.9 / L with twice the Jacobian's size at x0 for L.

    [1] Korpelevich. The extragradient method for finding saddle points. 1976.
    """

    def step(self, problem: Problem, z: Z) -> Z:
        (x,), f = z, problem.f
        assert f is not None
        return (self._move(problem, x, f.grad(self._move(problem, x, f.grad(x)))),)


class Optimistic(_Monotone):
    """As ExtraGradient(), with one F a step: z = (x, u), u the last pull,

    x' = prox_{tau g}(x - tau (2 F(x) - u)),   u' = F(x).

    Converges for tau < 1 / (2 L). Also known as optimistic gradient descent ascent.

    [1] Popov. A modification of the Arrow-Hurwicz method. 1980. Malitsky, Tam. A forward-backward
        splitting method for monotone inclusions without cocoercivity. SIOPT, 2020.
    """

    limit: ClassVar[float] = 0.5

    def start(self, problem: Problem, x0: Tensor) -> Z:
        return self.assemble(problem, x0, ())

    def step(self, problem: Problem, z: Z) -> Z:
        (x, last), f = z, problem.f
        assert f is not None
        pull = f.grad(x)
        return self._move(problem, x, 2 * pull - last), pull

    def assemble(self, problem: Problem, x: Tensor, y: Z) -> Z:
        assert problem.f is not None
        return x, problem.f.grad(x)
