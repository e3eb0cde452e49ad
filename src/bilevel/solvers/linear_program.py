"""Sums of |K x| with x in a box: linear programs, by interior points."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..operators.base import Operator
from ..operators.matrix import Matrix
from ..problem import Problem
from ..terms.norms import L1
from ..terms.sets import Box
from . import linear_saddle
from .base import Z, names, refuse
from .external import Borrowed, Limits
from .linear_saddle import Boxes
from .primal_dual import PrimalDual

_CHUNK = 2**20  # numbers in the matrices of the samples that are solved at a time, in the caches
_TIGHT = 1e-10  # the relative gap at which T sees which bounds hold


@dataclass(frozen=True, eq=False)
class LinearProgram(Borrowed):
    """min sum_i |weight_i K_i x|_1 with lower <= x <= upper: some 15 to 25 Newton steps, however
    badly scaled K is, each a Cholesky factor of an n x n matrix a sample, in float64.

    T is that of PrimalDual. For n up to a few hundred; the operators are written out, the same for
    all samples or a Matrix each. The bounds must be finite and apart, the weights positive.
    """

    by: PrimalDual = PrimalDual()
    K: Tensor | None = None  # (B or 1, m, n), set by prepare

    def check(self, problem: Problem) -> None:
        composed = all(isinstance(h.outer, L1) for h in problem.h)
        if not problem.h or not composed or not isinstance(problem.g, Box) or problem.f is not None:
            need = "L1() @ K, one or more, and a Box"
            raise refuse(self, need, names(problem.terms), "Use PrimalDual().")
        for h in problem.h:
            if not h.operator.shared and not isinstance(h.operator, Matrix):
                raise refuse(self, "operators that all samples share", "one a sample", _INSTEAD)

    def prepare(self, problem: Problem, x0: Tensor) -> LinearProgram:
        boxes = _boxes(problem, x0, torch.empty(1, 0, 0))
        apart = bool(((boxes.upper - boxes.lower) > 0).all() & boxes.upper.isfinite().all())
        if not apart or not bool((boxes.weight > 0).all() & boxes.lower.isfinite().all()):
            raise ValueError(
                "LinearProgram needs finite bounds with lower < upper, and weights > 0. " + _INSTEAD
            )
        matrices = [dense(h.operator, x0) for h in problem.h]
        batch = max(len(matrix) for matrix in matrices)
        K = torch.cat([matrix.expand(batch, -1, -1) for matrix in matrices], 1)
        return replace(self, by=self.by.prepare(problem, x0), K=K)

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        x, _, *ys = z0
        assert self.K is not None, "not prepared"
        whole, tol = _boxes(problem, x, self.K), min(limits.tol, _TIGHT)
        parts = [
            linear_saddle.solve(whole.take(index), tol, limits.max_iter, limits.out_of_time)
            for index in torch.arange(len(x)).split(max(_CHUNK // self.K[0].numel(), 1))
        ]
        found, y, steps = (torch.cat(part) for part in zip(*parts, strict=True))
        duals = y.split([part[0].numel() for part in ys], 1)
        found = found.reshape(x.shape).to(x)
        shaped = (d.reshape(part.shape).to(part) for d, part in zip(duals, ys, strict=True))
        return self.assemble(problem, found, tuple(shaped)), steps


_INSTEAD = "Use PrimalDual()."


def dense(operator: Operator, x: Tensor) -> Tensor:  # (B or 1, m, n), float64
    """The operator written out, for x of this shape."""
    if not operator.shared:
        assert isinstance(operator, Matrix)
        return operator.matrix.double()
    basis = torch.eye(x[:1].numel(), dtype=x.dtype, device=x.device)
    return operator(basis.reshape(-1, *x.shape[1:])).flatten(1).mT.double()[None]


def _boxes(problem: Problem, x: Tensor, K: Tensor) -> Boxes:
    box = problem.g
    assert isinstance(box, Box)

    def spread(value: Tensor | float, like: Tensor) -> Tensor:  # -> (B, n), float64
        full = torch.as_tensor(value, dtype=like.dtype, device=like.device).expand_as(like)
        return full.flatten(1).double()

    weights = [spread(h.outer.weight, h.operator(x)) for h in problem.h]  # type: ignore[attr-defined]
    return Boxes(K, spread(box.lower, x), spread(box.upper, x), torch.cat(weights, 1))
