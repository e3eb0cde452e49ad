"""Energies that are one prox."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import Scalar, like
from ..problem import Problem
from ..terms.base import Proximable
from ..terms.smooth import LeastSquares
from .base import Solver, Z, names, refuse
from .external import Borrowed, Limits
from .forward_backward import ForwardBackward
from .hessian import uniform, weight_of


@dataclass(frozen=True, eq=False)
class DirectProx(Borrowed):
    """min w/2 |x - y|^2 + g(x): the solution is prox_{g/w}(y), one evaluation.

    w is one number a sample; more only where g is separable. T is that of forward-backward.
    """

    by: Solver = ForwardBackward()
    step_size: Scalar | None = None  # 1 / w; set by prepare

    batched = ("step_size",)

    def check(self, problem: Problem) -> None:
        f, plain = problem.f, isinstance(problem.f, LeastSquares)
        if not plain or problem.g is None or problem.h:
            instead = "Use PrimalDual()." if problem.h or f is None else "Use ForwardBackward()."
            need = "LeastSquares(y) + one term with a prox"
            raise refuse(self, need, names(problem.terms), instead)

    def prepare(self, problem: Problem, x0: Tensor) -> DirectProx:
        f, g = problem.f, problem.g
        assert isinstance(f, LeastSquares) and g is not None
        step = step_of_prox(f, x0)
        if step is None:
            step = _steps(f, g, x0)
        return replace(self, by=self.by.prepare(problem, x0), step_size=step)

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x0,), f, g = z0, problem.f, problem.g
        assert isinstance(f, LeastSquares) and g is not None and self.step_size is not None
        x = g.prox(like(f.target, x0).expand_as(x0), self.step_size)
        return (x,), torch.ones(len(x), dtype=torch.long, device=x.device)


def step_of_prox(f: LeastSquares, x: Tensor) -> Scalar | None:
    """1 / w where w is positive and one number, or one a sample, (B,); else None."""
    weight = uniform(f, x)
    if isinstance(weight, Tensor):
        step = 1 / weight if bool((weight > 0).all()) else None
        return step if step is None or not step.ndim else step.flatten()
    return 1 / weight if weight is not None and weight > 0 else None


def _steps(f: LeastSquares, g: Proximable, x: Tensor) -> Scalar:
    """1 / w for each coordinate, where that is a step that g's prox can take."""
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
