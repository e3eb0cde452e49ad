"""Energies that are one prox."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .._broadcast import Scalar, like
from ..acceleration import Acceleration, Plain
from ..problem import Problem
from ..terms.base import Proximable, Smooth
from ..terms.smooth import LeastSquares
from .base import Z, names, refuse
from .external import External, Limits
from .forward_backward import ForwardBackward
from .hessian import uniform
from .steps import chosen, convex


@dataclass(frozen=True, eq=False)
class DirectProx(External):
    """min w/2 |x - y|^2 + g(x): the solution is prox_{g/w}(y), one evaluation, differentiated as it
    stands.

    w is one number a sample; more only where g is separable. T is that of forward-backward.
    """

    explicit = True

    def check(self, problem: Problem) -> None:
        f, plain = problem.f, isinstance(problem.f, LeastSquares)
        if not plain or problem.g is None or problem.h:
            instead = "Use PrimalDual()." if problem.h or f is None else "Use ForwardBackward()."
            need = "LeastSquares(y) + one term with a prox"
            raise refuse(self, need, names(problem.terms), instead)

    def prepare(self, problem: Problem, x0: Tensor) -> DirectProx:
        f, g = _parts(problem)
        chosen("step_size", None, g)
        if not _positive(f.weight):
            raise ValueError(
                "DirectProx divides by the weight of LeastSquares, which is 0 somewhere. Use "
                "ForwardBackward()."
            )
        step = _step(f, x0)
        if not isinstance(step, Tensor) or step.ndim < 2:
            return self
        if not torch.equal(g.admissible(step).expand_as(step), step):
            raise ValueError(
                f"DirectProx needs one weight a sample in LeastSquares beside {type(g).__name__}, "
                "whose prox is not separable. Use ForwardBackward()."
            )
        return self

    def step(self, problem: Problem, z: Z) -> Z:
        tau = 0.95 * _step(_parts(problem)[0], z[0])
        return ForwardBackward(tau).step(problem, z)

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x0,), (f, g) = z0, _parts(problem)
        x = g.prox(like(f.target, x0).expand_as(x0), _step(f, x0))
        return (x,), torch.ones(len(x), dtype=torch.long, device=x.device)

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Plain()


def single_prox(f: Smooth | None, g: Proximable | None, x: Tensor) -> bool:
    """Whether the minimiser of f + g is a prox of g whatever g is: w is one number a sample."""
    if not isinstance(f, LeastSquares) or g is None or g.tuned_by_step or not convex(g, x):
        return False
    return uniform(f, x) is not None and _positive(f.weight)


def _parts(problem: Problem) -> tuple[LeastSquares, Proximable]:
    assert isinstance(problem.f, LeastSquares) and problem.g is not None
    return problem.f, problem.g


def _positive(weight: Scalar) -> bool:
    return bool((weight > 0).all()) if isinstance(weight, Tensor) else weight > 0


def _step(f: LeastSquares, x: Tensor) -> Scalar:
    """1 / w, with its history: a number, one a sample, (B,), or of x's shape."""
    weight = uniform(f, x)
    if weight is not None:
        return 1 / (weight.flatten() if isinstance(weight, Tensor) and weight.ndim else weight)
    step = (1 / like(f.weight, x)).expand_as(x)
    flat = step.flatten(1)
    return flat[:, 0] if bool((flat == flat[:, :1]).all()) else step
