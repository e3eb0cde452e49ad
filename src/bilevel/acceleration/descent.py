"""Rules for smooth energies that go down a direction: damped steps, quasi-Newton steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .._broadcast import eps, expand, inner, like, norm_event, tiny
from .base import Acceleration, State, Z
from .momentum import primal_only

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..terms.base import Smooth

_FALL = 1e-4  # of the fall that the slope promises


def _smooth_only(rule: Acceleration, fixpoint: Fixpoint, z: Z) -> Smooth:
    problem = fixpoint.problem
    if problem.f is None or problem.g is not None or problem.h:
        raise TypeError(
            f"{type(rule).__name__} needs a smooth energy alone. Use Nesterov() with "
            "ForwardBackward(), or Halpern() with PrimalDual()."
        )
    primal_only(rule, fixpoint, z)
    return problem.f


def descended(
    f: Smooth, x: Tensor, value: Tensor, gradient: Tensor, d: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """x + t d, or x - t grad f(x) where d does not point downhill, with t = 1, or less until f is
    <= f(x) + 1e-4 t <grad f(x), d> there, up to rounding; its value and gradient.

    The next t is the minimum of a parabola, at most half and at least a tenth of the last.
    """
    slope = inner(gradient, d)
    if not bool((slope < 0).all()):
        d = torch.where(expand(slope < 0, x), d, -gradient)  # type: ignore[arg-type]
        slope = inner(gradient, d)
    most, t, new = value + 4 * eps(value) * value.abs(), None, x + d
    fresh, turned = f.value_and_grad(new)  # the first is mostly the last
    for _ in range(40):
        low = fresh <= torch.add(most, slope if t is None else t * slope, alpha=_FALL)
        if bool(low.all()):
            break
        bad, t = ~low, torch.ones_like(value) if t is None else t  # NaN counts as bad
        best = -slope * t.square() / (2 * (fresh - value - slope * t)).clamp_min(tiny(x))
        less = torch.where(fresh.isfinite(), best, 0.0).clamp(0.1 * t, 0.5 * t)
        t = torch.where(bad, less, t)
        new = x + expand(t, x) * d
        fresh, turned = f.value_and_grad(new)
    return new, fresh, turned


@dataclass(frozen=True)
class Armijo(Acceleration):
    """z + t (T(z) - z) with t = 1, or less until the energy falls by a part of what its slope
    promises; along -grad f where T does not point downhill.

    For smooth energies, with Newton and GradientDescent.
    [1] Armijo. Minimization of functions having Lipschitz continuous first derivatives. 1966.
    """

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        return _smooth_only(self, fixpoint, z).value_and_grad(*z)

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        (x,), (value, gradient), f = z, state, fixpoint.problem.f
        assert f is not None
        new, value, gradient = descended(f, x, value, gradient, fixpoint.T(z)[0] - x)
        return (new,), (value, gradient)


@dataclass(frozen=True)
class LBFGS(Acceleration):
    """x - t B grad f(x), B the inverse Hessian told by the last `memory` changes of x and grad f,
    t by backtracking.

    For smooth energies of any size, with GradientDescent. A step costs one value and gradient, or
    a few, and 4 memory products of vectors; it needs no Lipschitz constant.
    [1] Liu, Nocedal. On the limited memory BFGS method. Math. Programming, 1989.
    """

    memory: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.memory, int) or self.memory < 1:
            raise ValueError(f"LBFGS needs a memory of at least 1 change, got {self.memory!r}.")

    def start(self, fixpoint: Fixpoint, z: Z) -> State:
        f, (x,), solver = _smooth_only(self, fixpoint, z), z, fixpoint.solver
        if not hasattr(solver, "step_size"):
            raise TypeError(
                f"LBFGS takes its first step by GradientDescent(), got {type(solver).__name__}."
            )
        flat = x.flatten(1)
        changes = flat.new_zeros(len(x), self.memory, flat.shape[1])
        scale = like(solver.step_size, flat).expand(len(x))  # type: ignore[attr-defined]
        return *f.value_and_grad(x), changes, changes, flat.new_zeros(len(x), self.memory), scale

    def step(self, fixpoint: Fixpoint, z: Z, state: State) -> tuple[Z, State]:
        (x,), (value, gradient, s, y, rho, scale), f = z, state, fixpoint.problem.f
        assert f is not None
        d = -_product(gradient.flatten(1), s, y, rho, scale).reshape(x.shape)
        new, value, fresh = descended(f, x, value, gradient, d)
        change, turn = (new - x).flatten(1), (fresh - gradient).flatten(1)
        curved, square = inner(change, turn), inner(turn, turn)
        good = curved > 1e-10 * norm_event(change) * square.sqrt()  # else B might turn uphill
        latest = torch.where(good, 1 / torch.where(good, curved, 1.0), 0.0)
        scale = torch.where(good, curved / torch.where(good, square, 1.0), scale)
        s, y = (torch.cat([k[:, 1:], v[:, None]], 1) for k, v in ((s, change), (y, turn)))
        rho = torch.cat([rho[:, 1:], latest[:, None]], 1)
        return (new,), (value, fresh, s, y, rho, scale)


def _product(q: Tensor, s: Tensor, y: Tensor, rho: Tensor, scale: Tensor) -> Tensor:
    """B q by the two-loop recursion from B_0 = scale; a pair with rho = 0 plays no part."""
    pairs = list(zip(s.unbind(1), y.unbind(1), rho[:, :, None].unbind(1), strict=True))
    alphas = []
    for s_i, y_i, rho_i in reversed(pairs):
        alphas.append(rho_i * (s_i * q).sum(1, keepdim=True))
        q = torch.addcmul(q, alphas[-1], y_i, value=-1)
    q = scale[:, None] * q
    for s_i, y_i, rho_i in pairs:
        beta = rho_i * (y_i * q).sum(1, keepdim=True)
        q = torch.addcmul(q, alphas.pop() - beta, s_i)
    return q
