"""A rule on sequences as a torch optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bilevel.acceleration import Acceleration
from bilevel.fixpoint import Fixpoint
from bilevel.learning.descent import Closure, Descent
from bilevel.problem import Problem
from bilevel.solvers import GradientDescent
from bilevel.terms import Smooth


class ByRule(Descent):
    """A rule of the library steps the parameters of a network: x is all of them as one vector, E
    the loss, T(x) = x - step_size grad E(x).

    For learned rules, CoordinatewiseLSTM() alone or in Guarded(), and for every other one for
    smooth energies: Nesterov(), LBFGS(). step(closure) as for torch.optim.LBFGS: the closure clears
    the gradients, computes the loss, calls backward and returns the loss; it is called once or
    several times a step, as the rule needs.

    >>> import torch, bilevel as bl
    >>> w = torch.ones(3, requires_grad=True)
    >>> optimizer = bl.ByRule([w], bl.Nesterov(), step_size=0.1)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = w.square().sum()
    ...     loss.backward()
    ...     return loss
    >>> [round(float(optimizer.step(closure)), 2) for _ in range(3)]
    [3.0, 1.92, 1.08]
    """

    def __init__(
        self, params: Iterable[Tensor], rule: Acceleration, *, step_size: float = 1.0
    ) -> None:
        if not isinstance(rule, Acceleration):
            raise TypeError(f"ByRule needs a rule, Nesterov() say, got {rule!r}.")
        if not 0 < step_size < math.inf:
            raise ValueError(f"ByRule needs step_size > 0, finite, got {step_size}.")
        self.rule, self.solver = rule, GradientDescent(step_size=step_size)
        super().__init__(params, {"step_size": step_size})

    @torch.no_grad()
    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """One step of the rule; returns the loss before it."""
        energy, z = _Loss(self, closure), (self.theta[None],)
        fixpoint = Fixpoint(Problem((energy,)), self.solver)
        if "state" not in self.memory:
            self.memory["state"] = self.rule.start(fixpoint, z)
        loss = float(energy.value(z[0]))
        z, self.memory["state"] = self.rule.step(fixpoint, z, self.memory["state"])
        self.place(z[0][0])
        return loss


@dataclass(frozen=True, eq=False)
class _Loss(Smooth):
    """The closure's loss as an energy of x (1, n), each point evaluated once."""

    optimizer: Descent
    closure: Closure
    seen: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)

    def value(self, x: Tensor) -> Tensor:
        return self._at(x)[0]

    def grad(self, x: Tensor) -> Tensor:
        return self._at(x)[1]

    def _at(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for point, value, gradient in self.seen:
            if torch.equal(point, x):
                return value, gradient
        self.optimizer.place(x[0])
        loss, gradient = self.optimizer.evaluate(self.closure)
        self.seen.append((x, x.new_full((1,), loss), gradient[None]))
        return self.seen[-1][1:]
