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

    Where the signs hold the energy is smooth, F(A x) + <w ratio signs, x> + w (1 - ratio) |x|^2 / 2
    for the elastic net, ratio 1 for L1.
    """

    columns: Tensor  # (k,), increasing
    signs: Tensor  # (B, k): -1, 1, or 0 where the sample does not use the column
    operator: Operator  # A's columns, detached
    hessian: ReducedHessian | None = None

    @staticmethod
    def of(problem: Problem, signs: Tensor) -> Support:  # (B, n)
        columns = (signs != 0).any(0).nonzero()[:, 0]
        return Support(columns, signs[:, columns], problem.f.operator.columns(columns))  # type: ignore[union-attr]

    def fits(self, signs: Tensor) -> bool:  # (B, n)
        """Whether they are these: on these columns, and 0 elsewhere."""
        there = signs[:, self.columns]
        outside = signs.count_nonzero() - there.count_nonzero()
        return torch.equal(there, self.signs) and not bool(outside)

    @property
    def sound(self) -> bool:
        return self.hessian is not None and self.hessian.sound

    def bent(self, problem: Problem, x: Tensor) -> Support:
        """The same, with the Hessian at x."""
        (f, penalty), here = self._restricted(problem, x), x[:, self.columns].detach()
        with torch.no_grad():
            bend = row(penalty.weight, here) * (1 - row(penalty.ratio, here))
        return replace(self, hessian=ReducedHessian(f, here, self.signs != 0, bend))

    def newton(self, problem: Problem, x: Tensor) -> Tensor:
        """x - t H^-1 grad on the support, 0 elsewhere; t = 1, or less where an entry would change
        its sign: up to there the energy falls [1].

        Recorded, it knows every θ of F, A and the penalty; of A the columns that are used.

        [1] Lee, Battle, Raina, Ng. Efficient sparse coding algorithms. NIPS 2006.
        """
        (f, penalty), s = self._restricted(problem, x), self.signs
        here = x[:, self.columns]
        weight, ratio = row(penalty.weight, here), row(penalty.ratio, here)
        slope = f.grad(here) + weight * (ratio * s + (1 - ratio) * here)
        slope = torch.where(s != 0, slope, 0.0)
        step = self.hessian.solve(slope) if len(self.columns) else slope  # type: ignore[union-attr]
        moved = here - _until_crossing(here.detach(), step.detach(), s) * step
        moved = torch.where(moved * s > 0, moved, 0.0)
        return torch.zeros_like(x).index_copy(1, self.columns, moved)

    def _restricted(self, problem: Problem, x: Tensor) -> tuple[SmoothComposition, ElasticNet]:
        """F(A x) and the penalty as functions of the unknowns `columns`."""
        f, penalty = problem.f, _elastic(problem)
        assert isinstance(f, SmoothComposition)
        A, operator = f.operator, self.operator
        if isinstance(A, Matrix) and depends([A.matrix]):
            operator = A.columns(self.columns)
        weight, ratio = (row(v, x)[:, self.columns] for v in (penalty.weight, penalty.ratio))
        return replace(f, operator=operator), ElasticNet(ratio, weight=weight)


@torch.no_grad()
def signs_at(problem: Problem, x: Tensor) -> Tensor:  # -> (B, n)
    """Those of x, and of the one zero whose gradient exceeds its kink most, where that is more than
    what the gradient is off on the support."""
    f, penalty = problem.f, _elastic(problem)
    assert isinstance(f, SmoothComposition)
    used = (x != 0).any(0).nonzero()[:, 0]
    image = f.operator.columns(used)(x[:, used])  # type: ignore[attr-defined]
    slope = f.operator.adjoint(f.outer.grad(image))
    weight, ratio = row(penalty.weight, x), row(penalty.ratio, x)
    off = slope + weight * (ratio * x.sign() + (1 - ratio) * x)
    excess = torch.where(x == 0, slope.abs() - weight * ratio, -torch.inf)
    worst = excess.amax(1, keepdim=True)
    joins = (excess == worst) & (worst > (off * x.sign()).abs().amax(1, keepdim=True))
    return torch.where(joins, -slope.sign(), x.sign())


def _until_crossing(x: Tensor, step: Tensor, signs: Tensor) -> Tensor:  # -> (B, 1)
    """The largest t <= 1 for which x - t step keeps its signs; enough more for the first to be
    0."""
    crossing = (x * signs > 0) & ((x - step) * signs <= 0)
    reach = torch.where(crossing, x / torch.where(crossing, step, 1.0), torch.inf)
    first = reach.amin(1, keepdim=True) if x.shape[1] else x.new_ones(len(x), 1)
    return (first * (1 + 4 * eps(x))).clamp(max=1.0)


def _elastic(problem: Problem) -> ElasticNet:
    g = problem.g
    assert isinstance(g, L1 | ElasticNet)
    return g if isinstance(g, ElasticNet) else ElasticNet(1.0, weight=g.weight)


def row(value: Tensor | float, x: Tensor) -> Tensor:  # -> (B or 1, n)
    """A field that broadcasts against x, as one row a sample."""
    value = like(value, x)
    value = value.reshape((1,) * (2 - value.ndim) + value.shape)
    return value.expand(len(value), x.shape[1])
