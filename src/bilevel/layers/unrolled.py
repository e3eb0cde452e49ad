"""A fixed number of a solver's steps as a module, with constants of their own to learn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .._autocast import full_precision
from .._tangents import constant
from ..acceleration import Acceleration, Plain
from ..checks import as_problem, boundary
from ..fixpoint import Fixpoint
from ..problem import Problem
from ..solvers.base import Solver, Z
from ..terms.base import Term

Energy = Problem | Term | Callable[[list[Tensor]], Problem | Term]


def unrolled(
    solver: Solver,
    steps: int,
    *,
    learn: Sequence[str] = (),
    acceleration: Acceleration | None = None,
) -> Unrolled:
    """x_steps of a solver as a network: net(energy, x0), differentiated through its steps.

    learn: the solver's constants that each step has its own of, "step_size" say. Step k has
    exp(log_factors[name][k]) times what the solver sets for the energy, to begin with once that:
    the net starts as the solver. Learned constants may leave the solver's limits: a net is judged
    by what it gives after its steps, and nothing is promised beyond them. acceleration: the
    rule on the sequence, by default none; with Nesterov() ForwardBackward() is FISTA. Steps that a
    rule sets by itself, Halpern()'s balance, count as constant.

    >>> import torch, bilevel as bl
    >>> net = bl.unrolled(bl.ForwardBackward(), 10, learn=["step_size"])
    >>> y = torch.tensor([[0.3, -1.0, 2.0]])
    >>> net(bl.LeastSquares(y) + 0.5 * bl.L1()).detach()
    tensor([[ 0.0000, -0.5000,  1.5000]])
    >>> net.log_factors["step_size"].shape
    torch.Size([10])
    """
    return Unrolled(solver, steps, learn=learn, acceleration=acceleration)


class Unrolled(nn.Module):
    """net(energy, x0) = x_steps, see `unrolled`.

    energy: an energy, or a function of the iterates so far, [x_0, ..., x_k], that gives the energy
    of the step from x_k: so each step may have matrices and weights of its own. Memory grows with
    the steps.
    """

    def __init__(
        self,
        solver: Solver,
        steps: int,
        *,
        learn: Sequence[str] = (),
        acceleration: Acceleration | None = None,
    ) -> None:
        super().__init__()
        _check(solver, steps, learn)
        self.solver, self.steps = solver, steps
        self.acceleration = Plain() if acceleration is None else acceleration
        self.log_factors = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(steps)) for name in learn}
        )

    def forward(self, energy: Energy, x0: Tensor | None = None) -> Tensor:  # -> (B, *event)
        with full_precision():
            for fixpoint, z in self._run(energy, x0):  # noqa: B007  (the last is what counts)
                pass
            return fixpoint.primal(z)

    def trajectory(self, energy: Energy, x0: Tensor | None = None) -> list[Tensor]:
        """x_0, ..., x_steps."""
        with full_precision():
            return [fixpoint.primal(z) for fixpoint, z in self._run(energy, x0)]

    def _run(self, energy: Energy, x0: Tensor | None) -> Iterator[tuple[Fixpoint, Z]]:
        problem, path = begun(energy, x0)
        start = path[0].detach()
        self.solver.check(problem)
        prepared = self._prepared(problem, start)
        fixpoint, z = self._fixpoint(0, problem, prepared, start), prepared.start(problem, path[0])
        state = self.acceleration.start(fixpoint, z)
        yield fixpoint, z
        for k in range(self.steps):
            if k and callable(energy):
                path.append(fixpoint.primal(z))
                problem = as_problem(energy(path))  # type: ignore[operator]
                prepared = self._prepared(problem, path[-1])
            fixpoint = self._fixpoint(k, problem, prepared, start)
            z, state = self.acceleration.step(fixpoint, z, state)
            yield fixpoint, z

    def _prepared(self, problem: Problem, x: Tensor) -> Solver:
        with constant():
            return self.solver.prepare(problem, x.detach())

    def _fixpoint(self, k: int, problem: Problem, prepared: Solver, x: Tensor) -> Fixpoint:
        """T of the step k, with its own constants, in the precision of x."""
        own = {
            name: _times(getattr(prepared, name), logs[k].exp().to(x))
            for name, logs in self.log_factors.items()
        }
        return Fixpoint(problem, replace(prepared, **own) if own else prepared)  # type: ignore[type-var]


def begun(energy: Energy, x0: Tensor | None) -> tuple[Problem, list[Tensor]]:
    """The problem of the first step, and [x_0], x_0 with its history."""
    if not callable(energy):
        problem, start = boundary(energy, x0)
        return problem, [start if x0 is None else x0]  # the boundary's has no history
    if x0 is None:
        raise ValueError(
            "energy is a function of the iterates, so the first is needed: pass x0, "
            "torch.zeros(B, n) say."
        )
    return boundary(energy([x0]), x0)[0], [x0]


def _times(constant: Any, factor: Tensor) -> Any:
    if isinstance(constant, tuple):
        return tuple(_times(part, factor) for part in constant)
    return constant * factor


def _check(solver: object, steps: object, learn: Sequence[str]) -> None:
    if not isinstance(solver, Solver):
        raise TypeError(f"unrolled needs a solver, ForwardBackward() say, got {solver!r}.")
    name = type(solver).__name__
    if not solver.recordable:
        raise TypeError(
            f"unrolled cannot record {name}: what it does is no sequence of steps. Use an "
            "iterative solver, ForwardBackward() or PrimalDual() say."
        )
    if not isinstance(steps, int) or steps < 1:
        raise ValueError(f"unrolled needs steps >= 1, got {steps!r}.")
    unknown = [one for one in learn if one not in solver.batched]
    if isinstance(learn, str) or unknown:
        raise ValueError(
            f"learn = {learn!r}: a list of constants of {name} is needed, which has "
            f"{', '.join(solver.batched) or 'none'}."
        )
