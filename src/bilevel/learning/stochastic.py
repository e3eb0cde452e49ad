"""learn_stochastic: lower level, adjoint and θ move together, each step on one random batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bilevel.errors import NotConverged
from bilevel.learning.batches import Batch, Batches, Dataset
from bilevel.problem import Problem
from bilevel.terms.base import Proximable, Term

Energy = Callable[[Any, Batch], Term | Problem]  # the mean over the samples of a batch
Loss = Callable[[Any, Tensor, Batch], Tensor]  # likewise, at x


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
    if steps < 0:
        raise ValueError(f"steps={steps}: pass the number of steps to take, 0 or more.")
    if x0.ndim < 1 or len(x0) != 1:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)}: all samples share one x, pass (1, *event)."
        )
    lower = _cut(data, batch_size, seed, x0.device)
    upper = _cut(validation, min(batch_size, len(validation)), seed, x0.device)
    draw = Draws(model, energy, loss, lower, upper, method.memory, seed)
    x, v = x0.detach().clone(), torch.zeros_like(x0)
    for k in range(steps):
        shrink = (1 + k) ** -method.decay
        x, v, direction = method.advance(draw, x, v, method.step_size * shrink)
        if not (x.isfinite().all() and v.isfinite().all() and direction.isfinite().all()):
            raise NotConverged(
                f"step {k + 1} of {type(method).__name__} left the finite numbers; the model is as "
                f"before it. Take a smaller step_size than {method.step_size}, or a smaller "
                f"outer_step_size than {method.outer_step_size}."
            )
        draw.move(-method.outer_step_size * shrink * direction)
        if on_step is not None:
            on_step(k + 1, x)
    return StochasticResult(model, x)


class Draws:
    """Steps and directions from batches drawn at random."""

    def __init__(
        self,
        model: nn.Module,
        energy: Energy,
        loss: Loss,
        lower: list[Batch],
        upper: list[Batch],
        memory: bool,
        seed: int,
    ) -> None:
        self.model, self.energy, self.loss, self.lower, self.upper = (
            model, energy, loss, lower, upper,
        )  # fmt: skip
        self.theta = [p for p in model.parameters() if p.requires_grad]
        if not self.theta:
            raise ValueError("the model has no parameter that requires a gradient to learn.")
        self._generator = torch.Generator().manual_seed(seed)
        self._shares = of_lower, of_upper = _shares(lower), _shares(upper)
        self._slope, self._curved, self._outer = (
            Memory(shares) if memory else _fresh for shares in (of_lower, of_lower, of_upper)
        )

    def descend(self, x: Tensor, step: float) -> Tensor:
        """x after a step."""
        with torch.no_grad():
            i, _ = self._draw()
            problem = _problem(self.energy(self.model, self.lower[i]))
            moved = x - step * self._slope(i, problem.f.grad(x))  # type: ignore[union-attr]
            return moved if problem.g is None else problem.g.prox(moved, step)

    def directions(self, x: Tensor, v: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
        """x and v after a step, and the direction of θ, all at (x, v)."""
        i, j = self._draw()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            problem = _problem(self.energy(self.model, self.lower[i]))
            slope = problem.f.grad(x)  # type: ignore[union-attr]
            moved = x.detach() - step * self._slope(i, slope.detach())
            following, v, share = self._through_prox(problem.g, moved, v, step)
            curved = self._derivative((v * slope).sum(), x)
            upper = self._derivative(self.loss(self.model, x, self.upper[j]), x)
        in_x, in_theta = _split(self._curved(i, curved) + self._outer(j, upper), x)
        return following, v - step * in_x, in_theta - share / step

    def _draw(self) -> tuple[int, int]:
        """A lower and an upper batch."""
        lower, upper = (torch.multinomial(p, 1, generator=self._generator) for p in self._shares)
        return int(lower), int(upper)

    def _through_prox(
        self, g: Proximable | None, u: Tensor, v: Tensor, step: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """prox(u), and <v, prox(u)> differentiated in u (v on the active coordinates) and in θ."""
        if g is None:
            return u, v, _flat([torch.zeros_like(p) for p in self.theta])
        u = u.requires_grad_()
        x = g.prox(u, step)
        active, share = _split(self._derivative((v * x).sum(), u), u)
        return x.detach(), active, share

    def _derivative(self, value: Tensor, x: Tensor) -> Tensor:
        """In (x, θ), as one vector."""
        inputs = (x, *self.theta)
        if not value.requires_grad:  # an energy linear in x, without θ
            return _flat([torch.zeros_like(p) for p in inputs])
        # retained: the energy's smooth and proximable terms may share their way to θ
        parts = torch.autograd.grad(
            value, inputs, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return _flat(parts)

    @torch.no_grad()
    def move(self, change: Tensor) -> None:
        for p in self.theta:
            part, change = change[: p.numel()], change[p.numel() :]
            p += part.reshape(p.shape).to(p)


class Memory:
    """SAGA's estimate of a mean over batches: the fresh one, corrected by the last ones of all.

    [1] Defazio, Bach, Lacoste-Julien. SAGA: a fast incremental gradient method. NeurIPS, 2014.
    """

    def __init__(self, shares: Tensor) -> None:
        self.shares: list[float] = shares.tolist()
        self.rows: dict[int, Tensor] = {}  # 0 until a batch is drawn
        self.mean: Tensor | float = 0.0

    def __call__(self, k: int, fresh: Tensor) -> Tensor:
        change = fresh - self.rows.get(k, 0.0)
        estimate = change + self.mean
        self.mean, self.rows[k] = self.mean + self.shares[k] * change, fresh
        return estimate


def _fresh(k: int, direction: Tensor) -> Tensor:
    """Without memory."""
    return direction


def _cut(data: Dataset, batch_size: int, seed: int, device: torch.device) -> list[Batch]:
    batches = Batches(data, batch_size, seed, device)
    return [batches.next() for _ in range(math.ceil(len(data) / batch_size))]


def _shares(batches: list[Batch]) -> Tensor:
    """How many of the samples each batch has: the last one may be smaller."""
    sizes = torch.tensor([len(batch["index"]) for batch in batches], dtype=torch.float64)
    return sizes / sizes.sum()


def _problem(energy: Term | Problem) -> Problem:
    problem = energy if isinstance(energy, Problem) else Problem((energy,))
    if problem.f is None or problem.h:
        names = " + ".join(type(term).__name__ for term in problem.terms)
        raise ValueError(
            "the energy of learn_stochastic needs a smooth term, and beside it one proximable term "
            f"at most, got {names}. Smooth the terms behind operators, or use learn."
        )
    return problem


def _flat(tensors: Iterable[Tensor]) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def _split(vector: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    return vector[: x.numel()].reshape(x.shape), vector[x.numel() :]
