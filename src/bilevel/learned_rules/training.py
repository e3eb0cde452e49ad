"""Training a rule through its own steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .._autocast import full_precision
from ..acceleration import Acceleration
from ..acceleration.base import State, Z
from ..checks import boundary
from ..fixpoint import Fixpoint
from ..problem import Problem
from ..solvers import GradientDescent, Solver
from ..terms.base import Term

Draw = Callable[[], tuple[Problem | Term, Tensor]]


def learn_rule(
    rule: Acceleration,
    draw: Draw,
    *,
    weights: Tensor,
    updates: int,
    solver: Solver | None = None,
    window: int = 20,
    lr: float = 0.005,
    loss: Callable[[Tensor], Tensor] = torch.log,
) -> list[float]:
    """Train the rule, a module too, on problems as they are drawn; returns the loss of every draw.

    min over the rule of sum_k w_k mean loss(E(x_k)), k = 1, ..., len(weights): a bilevel problem
    whose lower level is so many steps of the rule. weights (steps,): equal ones count the whole
    way, (0, ..., 0, 1) its end. Backpropagation is truncated: the rule is updated, by Adam, after
    each `window` steps, which begin at constant iterates. `loss`: for energies that are positive;
    give another one where they are not.

    draw() -> (energy, x0): a batch of new problems. `solver` makes the T of the rule, by default
    GradientDescent(). Raises FloatingPointError where the loss is not a number.

    >>> import torch, bilevel as bl
    >>> def draw():
    ...     A = torch.randn(32, 4, 4)
    ...     return bl.LeastSquares(torch.randn(32, 4)) @ bl.Matrix(A), torch.zeros(32, 4)
    >>> search = bl.LearnedLineSearch()
    >>> history = bl.learn_rule(search, draw, weights=torch.ones(10), updates=20)
    """
    if not isinstance(rule, nn.Module):
        raise TypeError(f"learn_rule trains a module, such as CoordinatewiseLSTM(), got {rule!r}.")
    if (
        not isinstance(weights, Tensor) or weights.ndim != 1
        or not bool((weights >= 0).all() and weights.isfinite().all() and weights.any())
    ):  # fmt: skip
        raise ValueError(
            f"learn_rule needs weights >= 0, a tensor of one a step, not all 0, got {weights!r}. "
            "For the whole way of 100 steps pass torch.full((100,), 0.01)."
        )
    for name, count in (("updates", updates), ("window", window)):
        if not isinstance(count, int) or count < 1:
            raise ValueError(f"learn_rule needs {name} >= 1, got {count!r}.")
    if not 0 < lr < torch.inf:
        raise ValueError(f"learn_rule needs lr > 0, finite, got {lr}.")
    optimizer = torch.optim.Adam(rule.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    history = []
    for _ in range(updates):
        with full_precision():
            fixpoint, z = _begin(draw, GradientDescent() if solver is None else solver)
            state, total = rule.start(fixpoint, z), 0.0
            for some in weights.split(window):
                part, z, state = _window(rule, fixpoint, z, state, some, loss)
                _update(rule, optimizer, part)
                total += float(part.detach())
                z, state = _constant(z), _constant(state)
        history.append(total)
        schedule.step()
    return history


def _begin(draw: Draw, solver: Solver) -> tuple[Fixpoint, Z]:
    drawn = draw()
    if not isinstance(drawn, tuple) or len(drawn) != 2:
        raise TypeError(
            f"draw of learn_rule gives a {type(drawn).__name__}: a pair (energy, x0) is needed."
        )
    problem, x = boundary(*drawn)
    solver.check(problem)
    prepared = solver.prepare(problem, x)
    return Fixpoint(problem, prepared), prepared.start(problem, x)


def _window(
    rule: Acceleration,
    fixpoint: Fixpoint,
    z: Z,
    state: State,
    weights: Tensor,
    loss: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Z, State]:
    part = z[0].new_zeros(())
    for weight in weights.tolist():
        z, state = rule.step(fixpoint, z, state)
        if weight:
            part = part + weight * loss(fixpoint.value(z)).mean()
    return part, z, state


def _update(rule: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    if not loss.requires_grad:  # all weights are 0 here
        return
    if not bool(loss.isfinite()):
        raise FloatingPointError(
            f"learn_rule's loss is {float(loss.detach())}. Lower lr, or give a loss of the energy "
            "that is finite where it has been."
        )
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(rule.parameters(), 1.0)
    optimizer.step()


def _constant(state: State) -> State:
    return tuple(
        _constant(part) if isinstance(part, tuple)
        else part.detach() if isinstance(part, Tensor) else part
        for part in state
    )  # fmt: skip
