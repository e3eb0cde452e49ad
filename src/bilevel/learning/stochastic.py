"""learn_stochastic: lower level, adjoint and θ move together, each step on one random batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from bilevel.errors import NotConverged
from bilevel.learning.batches import Dataset
from bilevel.learning.draws import Draws, Energy, Loss, cut


@dataclass(frozen=True, eq=False)
class StochasticResult:
    """What `learn_stochastic` found."""

    model: nn.Module  # the one that was passed, learned
    x: Tensor  # (1, *event): of the lower level


@dataclass(frozen=True, eq=False)
class StochasticMethod:
    """How x, the adjoint v and θ move: here all three together."""

    step_size: float  # of x and v: below 1 / L, L a Lipschitz constant of every batch's gradient
    outer_step_size: float  # of θ: as small as x and v need to follow

    memory: ClassVar[bool] = False  # of the last directions of every batch
    decay: ClassVar[float] = 0.5  # in step k both steps are divided by (1 + k)^decay

    def __post_init__(self) -> None:
        for name in ("step_size", "outer_step_size"):
            if not 0 < (size := getattr(self, name)) < math.inf:
                raise ValueError(f"{type(self).__name__} needs {name} > 0, finite, got {size}.")

    def advance(
        self, draw: Draws, x: Tensor, v: Tensor, step: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next x and v, and the direction of θ, flat."""
        return draw.directions(x, v, step)


class SOBA(StochasticMethod):
    """x <- prox(x - ρ ∂x f_i),  v <- Pv - ρ (∂xx f_i Pv + ∂x F_j),
    θ <- θ - γ (∂xθ f_i Pv + ∂θ F_j).

    All at the same point, on one lower batch i and one upper batch j; P is the derivative of the
    prox, for a sparse x the active coordinates [1 is without a prox]. The steps shrink as
    1 / sqrt(k): with constant ones the noise of the batches stays. A step costs one gradient of the
    energy and one of the loss, and a backward pass of the former.

    [1] Dagréou, Ablin, Vaiter, Moreau. A framework for bilevel optimization that enables
    stochastic and global variance reduction algorithms. NeurIPS, 2022.
    """


class SABA(StochasticMethod):
    """SOBA with the memory of SAGA: d_i - m_i + mean m for every direction d, m_i the last one of
    batch i [1].

    The noise goes as x, v and θ settle, so the steps stay constant. Memory: 2 |x| + |θ| numbers a
    lower batch, |x| + |θ| an upper one.

    [1] Dagréou, Ablin, Vaiter, Moreau. A framework for bilevel optimization that enables
    stochastic and global variance reduction algorithms. NeurIPS, 2022.
    """

    memory = True
    decay = 0.0


@dataclass(frozen=True, eq=False)
class ALSET(StochasticMethod):
    """For each step of θ: `inner` steps of x, then v anew by `terms` steps from 0 [1].

    Without a prox v is -ρ sum_{k < terms} (1 - ρ ∂xx f)^k ∂x F in expectation, the truncated
    Neumann series that [1] estimates by a random number of factors; what is left out is a bias, so
    ρ does not shrink here.

    [1] Chen, Sun, Yin. Closing the gap: tighter analysis of alternating stochastic gradient methods
    for bilevel problems. NeurIPS, 2021.
    """

    inner: int = 10
    terms: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inner < 1 or self.terms < 1:
            raise ValueError(
                f"ALSET needs inner, terms >= 1, got inner = {self.inner}, terms = {self.terms}."
            )

    def advance(
        self, draw: Draws, x: Tensor, v: Tensor, step: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        for _ in range(self.inner):
            x = draw.descend(x, step)
        v = torch.zeros_like(v)
        for _ in range(self.terms):
            _, v, _ = draw.directions(x, v, self.step_size)
        return x, v, draw.directions(x, v, self.step_size)[2]


def learn_stochastic(
    model: nn.Module,
    data: Dataset,
    validation: Dataset,
    energy: Energy,
    loss: Loss,
    x0: Tensor,
    *,
    method: StochasticMethod,
    steps: int,
    batch_size: int,
    seed: int = 0,
    on_step: Callable[[int, Tensor], object] | None = None,
) -> StochasticResult:
    """min over θ of the mean of loss(model, x, batch) over the validation data, at the minimiser x
    of the mean of energy(model, batch) over the data: one x for all samples, shape (1, *event).

    The energy is a smooth term, or one plus one proximable term that is the same for all batches;
    strongly convex on what the latter leaves free. The data are cut once into batches, which are
    drawn at random, the same for the same seed. For data too large to solve the lower level in
    every step; where it is not, `learn` is faster and certifies its gradient.
    """
    if not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}: pass the number of steps to take, 0 or more.")
    if not isinstance(method, StochasticMethod):
        raise TypeError(f"learn_stochastic needs a method, SABA(0.1, 0.1) say, got {method!r}.")
    if not isinstance(x0, Tensor) or x0.ndim < 1 or len(x0) != 1:
        got = f"shape {tuple(x0.shape)}" if isinstance(x0, Tensor) else f"a {type(x0).__name__}"
        raise ValueError(f"x0 is of {got}: all samples share one x, pass a tensor (1, *event).")
    lower = cut(data, batch_size, seed, x0.device)
    upper = cut(validation, min(batch_size, len(validation)), seed, x0.device)
    draw = Draws(model, energy, loss, lower, upper, method.memory, seed)
    x, v = x0.detach().clone(), torch.zeros_like(x0)
    for k in range(steps):
        shrink = (1 + k) ** -method.decay
        x, v, direction = method.advance(draw, x, v, method.step_size * shrink)
        if not (x.isfinite().all() and v.isfinite().all() and direction.isfinite().all()):
            raise NotConverged(
                f"step {k + 1} of {type(method).__name__} left the finite numbers; the model is as "
                f"before it. Take a smaller step_size than {method.step_size}, or a smaller "
                f"outer_step_size than {method.outer_step_size}; or is a gradient of the energy, "
                "or of the loss, NaN where x is finite?"
            )
        draw.move(-method.outer_step_size * shrink * direction)
        if on_step is not None:
            on_step(k + 1, x)
    return StochasticResult(model, x)
