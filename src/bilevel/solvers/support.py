"""Newton's step on the support of a sparse solution, its signs held."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import eps, like
from .._tangents import depends
from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..problem import Problem
from ..terms.composition import SmoothComposition
from ..terms.norms import L1, ElasticNet
from .reduced_hessian import ReducedHessian


@dataclass(frozen=True, eq=False)
class Support:
    """Where x is not 0, or will not stay 0, with its signs there: (B, k) of the columns that some
    sample of the batch uses.

    Where the signs hold the energy is smooth, F(A x) + <kink signs, x> + bend |x|^2 / 2 with the
    kink w and no bend for L1, w ratio and w (1 - ratio) for the elastic net.
    """

    columns: Tensor  # (k,), increasing
    signs: Tensor  # (B, k): -1, 1, or 0 where the sample does not use the column
    operator: Operator  # A's columns, detached
    hessian: ReducedHessian | None = None

    @staticmethod
    def of(problem: Problem, signs: Tensor) -> Support:  # (B, n)
        columns = _used(signs)
        return Support(columns, signs[:, columns], problem.f.operator.columns(columns))  # type: ignore[union-attr]

    def fits(self, signs: Tensor) -> bool:  # (B, n)
        """Whether they are these: on these columns, and 0 elsewhere."""
        return self.holds(signs) and torch.equal(signs[:, self.columns], self.signs)

    def holds(self, x: Tensor) -> bool:  # (B, n)
        """Whether x, of as many samples, is 0 outside these columns."""
        outside = (
            len(x) != len(self.signs) or x.count_nonzero() - x[:, self.columns].count_nonzero()
        )
        return not bool(outside)

    @property
    def sound(self) -> bool:
        return self.hessian is not None and self.hessian.sound

    def bent(self, problem: Problem, x: Tensor) -> Support:
        """The same, with the Hessian at x."""
        f, _, bend = self._restricted(problem, x)
        here = x[:, self.columns].detach()
        return replace(self, hessian=ReducedHessian(f, here, self.signs != 0, bend.detach()))

    def newton(self, problem: Problem, x: Tensor) -> Tensor:
        """x - t H^-1 grad on the support, 0 elsewhere; t = 1, or less where an entry would change
        its sign: up to there the energy falls [1].

        Recorded, it knows every θ of F, A and the penalty; of A the columns that are used.

        [1] Lee, Battle, Raina, Ng. Efficient sparse coding algorithms. NIPS 2006.
        """
        (f, kink, bend), s = self._restricted(problem, x), self.signs
        here = x[:, self.columns]
        slope = f.grad(here) + kink * s + bend * here
        used = s != 0
        slope = torch.where(used, slope, 0.0)
        step = self.hessian.solve(slope) if len(self.columns) else slope  # type: ignore[union-attr]
        moved = here - step
        stays = moved.detach() * s > 0
        if bool((stays != used).any()):
            moved = here - _until_crossing(here.detach(), step.detach(), s) * step
            stays = moved.detach() * s > 0
        moved = torch.where(stays, moved, 0.0)
        return torch.zeros_like(x).index_copy(1, self.columns, moved)

    def _restricted(self, problem: Problem, x: Tensor) -> tuple[SmoothComposition, Tensor, Tensor]:
        """F(A x), the kink and the bend as functions of the unknowns `columns`."""
        f, columns = problem.f, self.columns
        assert isinstance(f, SmoothComposition)
        A, operator = f.operator, self.operator
        if isinstance(A, Matrix) and depends([A.matrix]):
            operator = A.columns(columns)
        kink, bend = (part[:, columns] for part in _penalty(problem, x))
        return replace(f, operator=operator), kink, bend


@torch.no_grad()
def signs_at(problem: Problem, x: Tensor, near: Support | None = None) -> Tensor:  # -> (B, n)
    """Those of x, and of the one zero whose gradient exceeds its kink most, where that is more than
    what the gradient is off on the support; `near`: one that may hold x."""
    f, (kink, bend) = problem.f, _penalty(problem, x)
    assert isinstance(f, SmoothComposition)
    if near is None or not near.holds(x):
        near = Support.of(problem, x)
    used = near.columns
    here, slope = x[:, used], f.operator.adjoint(f.outer.grad(near.operator(x[:, used])))
    off = here.sign() * (slope[:, used] + bend[:, used] * here) + kink[:, used] * (here != 0)
    excess = (slope.abs() - kink).masked_fill_(x != 0, -torch.inf)
    worst = excess.amax(1, keepdim=True)
    joins = worst > (off.abs().amax(1, keepdim=True) if len(used) else 0.0)
    if not bool(joins.any()):
        return x.sign()
    return torch.where(joins & (excess == worst), -slope.sign(), x.sign())


def _used(x: Tensor) -> Tensor:  # (B, n) -> (k,)
    """The columns that some sample uses."""
    return x.any(0).nonzero()[:, 0]


def _until_crossing(x: Tensor, step: Tensor, signs: Tensor) -> Tensor:  # -> (B, 1)
    """The largest t <= 1 for which x - t step keeps its signs; enough more for the first to be
    0."""
    crossing = (x * signs > 0) & ((x - step) * signs <= 0)
    reach = torch.where(crossing, x / torch.where(crossing, step, 1.0), torch.inf)
    first = reach.amin(1, keepdim=True) if x.shape[1] else x.new_ones(len(x), 1)
    return (first * (1 + 4 * eps(x))).clamp(max=1.0)


def _penalty(problem: Problem, x: Tensor) -> tuple[Tensor, Tensor]:  # (B or 1, n) both
    """(kink, bend)."""
    g = problem.g
    assert isinstance(g, L1 | ElasticNet)
    weight = row(g.weight, x)
    if isinstance(g, L1):
        return weight, x.new_zeros(1, 1).expand(1, x.shape[1])
    ratio = row(g.ratio, x)
    return weight * ratio, weight * (1 - ratio)


def row(value: Tensor | float, x: Tensor) -> Tensor:  # -> (B or 1, n)
    """A field that broadcasts against x, as one row a sample."""
    value = like(value, x)
    value = value.reshape((1,) * (2 - value.ndim) + value.shape)
    return value.expand(len(value), x.shape[1])
