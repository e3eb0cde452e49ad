"""Rules for primal-dual methods: shrinking steps under strong convexity, balanced ones, restarted
Halpern."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .._broadcast import expand, norm_event, norm_parts, settled
from .base import Acceleration, State, Z, where

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint


@dataclass(frozen=True)
class Accelerated(Acceleration):
    """Chambolle-Pock's algorithm 2 for a strongly convex g, with PrimalDual. Gap O(1/k^2).

    theta = 1 / sqrt(1 + 2 gamma tau), tau *= theta, sigma /= theta, from tau = first / mu. On total
    variation of photographs gamma = 0.5 mu, first = 1 did best, 0.125 mu and 0.4 for the
    anisotropic one.

    Without a smooth term tau sigma is 4/3 of PrimalDual's: constant steps converge for
    tau sigma |K|^2 < 4 / (1 + 2 theta) [1]. For shrinking ones, of which nobody has shown it, the
    modes of a quadratic do so up to the same bound. A sixth of the steps saved.

    Where g is a ball, its multiplier stands for mu, measured on the way; tau = 1 / mu at most. So
    min TV(x) subject to |x - y| <= radius takes hardly longer than mu/2 |x - y|^2 + TV(x).

    [1] Banert, Upadhyaya, Giselsson. The Chambolle-Pock method converges weakly with theta > 1/2
        and tau sigma |L|^2 < 4 / (1 + 2 theta). 2023.
    """

    gamma: float = 0.5  # as a part of mu, in (0, 1]
    first: float = 1.0  # the first tau, as a part of 1 / mu

    feasible = True

    def __post_init__(self) -> None:
        if not (0 < self.gamma <= 1 and 0 < self.first < math.inf):
            raise ValueError(
                "Accelerated needs 0 < gamma <= 1 and a first tau > 0, got "
                f"gamma={self.gamma}, first={self.first}."
            )

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        solver: Any = fixpoint.solver
        if not hasattr(solver, "sweep"):
            raise TypeError(
                "Accelerated trades the two steps of PrimalDual(), got "
                f"{type(solver).__name__}. Use Nesterov()."
            )
        mu = solver.strong_convexity(fixpoint.problem, z[0])
        smooth, _ = solver.split(fixpoint.problem)
        sigma = solver.dual_step_size * (4 / 3 if smooth is None else 1.0)
        if solver.curvature(fixpoint.problem, z) is not None:
            return solver.step_size, sigma, 0.0
        if not bool(torch.as_tensor(mu > 0).all()):
            raise ValueError(
                "Accelerated needs a strongly convex term handled by its prox, and this problem "
                f"has none (mu = {mu}). Use Halpern() or OverRelaxation()."
            )
        tau = self.first / mu
        return tau, solver.step_size * sigma / tau, self.gamma * mu

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        (tau, sigma, theta), state = self._next(state)
        solver: Any = fixpoint.solver
        return solver.sweep(fixpoint.problem, z, tau, sigma, theta), state

    def advance(self, fixpoint: Fixpoint, z: Z, state: State, steps: int) -> tuple[Z, State]:
        state = self._measured(fixpoint, z, state)
        kernel = fixpoint.kernel(z)
        if kernel is None:
            return super().advance(fixpoint, z, state, steps)
        schedule = []
        for _ in range(steps):
            now, state = self._next(state)
            schedule.append(now)
        return kernel.sweeps(z, *zip(*schedule, strict=True)), state

    def _measured(self, fixpoint: Fixpoint, z: Z, state: State) -> State:
        """The state with mu as it is at z, where it changes."""
        solver: Any = fixpoint.solver
        mu = solver.curvature(fixpoint.problem, z)
        if mu is None:
            return state
        (tau, sigma, _), mu = state, mu.detach()
        part = (1 / (mu * tau)).clamp(max=1)
        return tau * part, sigma / part, self.gamma * mu

    @staticmethod
    def _next(state: State) -> tuple[tuple[Any, Any, Any], State]:
        """(tau, sigma, theta) of this step, and the state for the next."""
        tau, sigma, gamma = state
        theta = (1 + 2 * gamma * tau) ** -0.5
        return (tau, sigma, theta), (tau * theta, sigma / theta, gamma)


@dataclass(frozen=True)
class Rebalanced(Acceleration):
    """z_{k+1} = z_k + rho (T(z_k) - z_k) on the averaged T, the two steps of a primal-dual method
    balanced on the way.

    rho = 1 + 0.9 r, r the reflection that T allows: 1.9 where nothing is handled by its gradient.
    At k = 4, 7, 12, 19, ... the balance becomes the ratio of the lengths of the primal and of the
    dual path since the last time [2]. From k = 10,000 on it stays, and the method is
    OverRelaxation, which converges [1].

    [1] Condat. A primal-dual splitting method for convex optimization. JOTA, 2013.
    [2] Applegate et al. Practical large-scale linear programming using PDHG. 2021.
    """

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        reflection = fixpoint.solver.reflection(fixpoint.problem, fixpoint.primal(z))
        return z, 0, 4, z[0].new_ones(len(z[0])), 1 + 0.9 * reflection

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        return self.advance(fixpoint, z, state, 1)

    def advance(self, fixpoint: Fixpoint, z: Z, state: State, steps: int) -> tuple[Z, State]:
        begin, k, due, balance, rho = state
        while steps:
            now, stretch = _rebalanced(fixpoint, balance), min(steps, due - k)
            for _ in range(stretch):
                z = now.relaxed(z, rho)
            k, steps = k + stretch, steps - stretch
            if k == due:
                balance = _balance(fixpoint, z, begin, balance)
                begin, due = z, math.ceil(1.5 * k) + 1 if k < 10_000 else math.inf
        return z, (begin, k, due, balance, rho)


def _balance(fixpoint: Fixpoint, z: Z, begin: Z, now: Tensor) -> Tensor:  # -> (B,)
    """What the path from `begin` to z asks for; that of now where a path is lost in rounding. Steps
    are set, not differentiated."""
    z, begin = (tuple(part.detach() for part in parts) for parts in (z, begin))
    asked = fixpoint.solver.balance(fixpoint.problem, z, begin)
    return torch.where(asked.isnan(), now, asked).clamp(1e-4, 1e4)


@dataclass(frozen=True)
class Halpern(Acceleration):
    """z_{k+1} = (k+1)/(k+2) ((1+r) T(z_k) - r z_k) + 1/(k+2) z_0 on the averaged T, restarted.

    r = 1, the reflection, where T is firmly nonexpansive; less where a smooth term is handled by
    its gradient.

    A restart moves the anchor z_0 once the residual |T(z) - z| has fallen enough, and rebalances
    the two steps of a primal-dual method by the lengths of its primal and its dual path. Linear
    convergence on linear programs, whose plain iteration is slower by the condition number.

    [1] Lu, Yang. Restarted Halpern PDHG for linear programming. 2024.
    [2] Applegate et al. Practical large-scale linear programming using PDHG. 2021 (the balance).
    """

    sufficient: float = 0.2  # restart when the residual has fallen to this part
    necessary: float = 0.8  # ... or to this part, and rises again
    longest: float = 0.36  # ... or when the last stretch has this part of all steps

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        zero = z[0].new_zeros(len(z[0]))
        reflection = fixpoint.solver.reflection(fixpoint.problem, fixpoint.primal(z))
        return z, zero, zero, zero, zero + torch.inf, zero + 1, reflection

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        return self.advance(fixpoint, z, state, 1)

    def advance(self, fixpoint: Fixpoint, z: Z, state: State, steps: int) -> tuple[Z, State]:
        anchor, k, total, first, last, balance, r = state
        now = _rebalanced(fixpoint, balance)
        for i in range(steps):
            t, weight = now.averaged(z), (k + 1) / (k + 2)
            weights = torch.stack((weight * (1 + r), -weight * r, 1 - weight))
            # z is nobody else's after the first step
            z, squares = _once(partial(_anchored, weights, i > 0), t, z, anchor)
            residual = torch.stack(squares).sum(0).sqrt()
            first = torch.where(k == 0, residual, first)
            total = total + 1
            restart = (k > 0) & (
                (residual <= self.sufficient * first)
                | ((residual <= self.necessary * first) & (residual > last))
                | (k >= self.longest * total)
            )
            k, last = k + 1, residual
            if bool(restart.any()):
                wanted = (balance * _balance(fixpoint, t, anchor, balance)).sqrt()
                balance = torch.where(restart, wanted, balance)
                now = _rebalanced(fixpoint, balance)
                (z,) = _once(partial(_chosen, restart), t, z)
                (anchor,) = _once(partial(_chosen, restart), t, anchor)
                k, last = k.masked_fill(restart, 0.0), last.masked_fill(restart, torch.inf)
                # of steps lost in rounding, long stretches of reflections would add it up
                total = total.masked_fill(restart & settled(residual, norm_parts(t)), 0.0)
        return z, (anchor, k, total, first, last, balance, r)


def _rebalanced(fixpoint: Fixpoint, balance: Tensor) -> Fixpoint:
    return replace(fixpoint, solver=fixpoint.solver.rebalanced(fixpoint.problem, balance))


def _once(function: Callable[..., tuple[Tensor, ...]], *zs: Z) -> tuple[Z, ...]:
    """What the function finds of each part of the zs, kind by kind: parts of z that are one tensor
    are looked at once, and stay one."""
    columns = list(zip(*zs, strict=True))
    parts = {tuple(map(id, column)): column for column in columns}
    found = {key: function(*column) for key, column in parts.items()}
    return tuple(zip(*(found[tuple(map(id, column))] for column in columns), strict=True))


def _anchored(
    weights: Tensor, own: bool, t: Tensor, z: Tensor, anchor: Tensor
) -> tuple[Tensor, Tensor]:
    """(weights[0] t + weights[1] z + weights[2] anchor, |t - z|^2); z may be overwritten if it is
    our own."""
    from ..kernels import sequence  # compiled when first used

    fast = sequence.anchored(weights, t, z, anchor, own)
    if fast is not None:
        return fast
    a, b, c = (expand(weight.to(t.dtype), t) for weight in weights)
    return a * t + b * z + c * anchor, norm_event(t - z).square()


def _chosen(mask: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor]:
    return where(mask, (a,), (b,))  # type: ignore[return-value]
