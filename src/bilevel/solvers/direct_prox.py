"""Energies that are one prox."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar
from ..problem import Problem
from ..terms.smooth import LeastSquares
from .base import Solver, Z, names, refuse
from .external import Borrowed, Limits
from .forward_backward import ForwardBackward
from .hessian import weight_of


@dataclass(frozen=True, eq=False)
class DirectProx(Borrowed):
    """min w/2 |x - y|^2 + g(x): the solution is prox_{g/w}(y), one evaluation.

    w is one number a sample; more only where g is separable. T is that of forward-backward.
    """

    by: Solver = ForwardBackward()

    def check(self, problem: Problem) -> None:
        f, plain = problem.f, isinstance(problem.f, LeastSquares)
        if not plain or problem.g is None or problem.h:
            instead = "Use PrimalDual()." if problem.h or f is None else "Use ForwardBackward()."
            need = "LeastSquares(y) + one term with a prox"
            raise refuse(self, need, names(problem.terms), instead)

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x0,), f, g = z0, problem.f, problem.g
        assert isinstance(f, LeastSquares) and g is not None
        target = torch.as_tensor(f.target, dtype=x0.dtype, device=x0.device).expand_as(x0)
        x = g.prox(target, self._step(problem, x0))
        return (x,), torch.ones(len(x), dtype=torch.long, device=x.device)

    def _step(self, problem: Problem, x: Tensor) -> Scalar:
        f, g = problem.f, problem.g
        assert isinstance(f, LeastSquares) and g is not None
        weight = weight_of(f, x)
        if not bool((weight > 0).all()):
            raise ValueError(
                "DirectProx divides by the weight of LeastSquares, which is 0 somewhere. Use "
                "ForwardBackward()."
            )
        step = (1 / weight).expand_as(x)
        flat = step.flatten(1)
        if bool((flat == flat[:, :1]).all()):
            return flat[:, 0]
        if not torch.equal(g.admissible(step).expand_as(step), step):
            raise ValueError(
                f"DirectProx needs one weight a sample in LeastSquares beside {type(g).__name__}, "
                "whose prox is not separable. Use ForwardBackward()."
            )
        return step
