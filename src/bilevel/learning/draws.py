"""Batches drawn at random, and the directions that x, the adjoint and θ are told by them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from bilevel.learning.batches import Batch, Batches, Dataset
from bilevel.learning.learner import check_loss
from bilevel.problem import Problem
from bilevel.terms.base import Proximable, Term

Energy = Callable[[Any, Batch], Term | Problem]  # the mean over the samples of a batch
Loss = Callable[[Any, Tensor, Batch], Tensor]  # likewise, at x


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
            loss = self.loss(self.model, x, self.upper[j])
            check_loss(loss)
            upper = self._derivative(loss, x)
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


def cut(data: Dataset, batch_size: int, seed: int, device: torch.device) -> list[Batch]:
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
