"""Newton's method."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .._broadcast import expand, norm_event
from ..acceleration import Acceleration, Armijo, Plain
from ..acceleration.descent import descended
from ..problem import Problem
from ..terms.base import Smooth
from .base import Z, names, refuse
from .external import External, Limits
from .forms import DENSE, Dense, Form, form
from .logistic_regression import logistic_regression

_STEPS = 200  # more would not help
_NEAR = 1e-5  # the last step, relatively: then one more mends all, and proves it
_SAME = 1e-8  # of points, relatively, that have one Hessian


@dataclass(frozen=True, eq=False)
class Newton(External):
    """min f(x), convex and smooth: T(x) = x - H^-1 grad f(x), H the Hessian at x.

    A quadratic f is solved in one step: by division where H is diagonal, by fast transforms where
    it is diagonal there, else by the Cholesky factor of an n x n matrix, n <= 1500. Diagonal are,
    for the cosine transform, least squares of x, of its Gradient and of its Blur with mirrored
    edges by an even kernel; for the Fourier transform, of x and of its Blur with Periodic() edges.

    Else one Hessian and one factor a step, the step shortened until f falls (Armijo 1966):
    quadratic convergence near the solution, where T is plain. Logistic regression of up to 128
    features, in float64 on the CPU, by one compiled pass.
    dT/dx = 0 at the solution: one step carries the derivative, with the last factor.

    [1] Nocedal, Wright. Numerical Optimization, ch. 3. 2006.
    """

    hessian: Form | None = None  # of a quadratic f, or that of the solution; set by the run
    seen: list[tuple[Tensor, Form]] = field(default_factory=list, repr=False)  # (x, H at x), last

    newton, proves, stride = True, True, 1

    def check(self, problem: Problem) -> None:
        if problem.f is None or problem.g is not None or problem.h:
            instead = "Use PrimalDual()." if problem.h else "Use ForwardBackward()."
            raise refuse(self, "a smooth energy", names(problem.terms), instead)
        if not problem.f.potential:
            raise refuse(
                self, "a symmetric Hessian", "a VectorField", "Use ExtraGradient(), or Broyden()."
            )

    def prepare(self, problem: Problem, x0: Tensor) -> Newton:
        assert problem.f is not None
        if problem.f.quadratic:
            found = form(problem.f, x0)
            if found is not None:
                return replace(self, hessian=found)
        if x0[:1].numel() > DENSE:
            raise ValueError(
                f"Newton writes the Hessian out, and x has {x0[0].numel()} unknowns a sample: more "
                f"than {DENSE}. Use GradientDescent() with acceleration=LBFGS()."
            )
        return replace(self, seen=[])

    def solve(self, problem: Problem, z0: Z, limits: Limits) -> tuple[Z, Tensor]:
        (x,), f = z0, problem.f
        assert f is not None
        steps = x.new_zeros(len(x), dtype=torch.long)
        if self.hessian is not None:
            return self.step(problem, z0), steps + 1
        most = min(limits.max_iter, _STEPS)
        model = logistic_regression(f, x)
        if model is not None:
            from ..kernels import newton as kernel  # compiled when first used

            found = kernel.logistic(*model, x, min(limits.tol, _SAME), most)
            if found is not None:
                x, factor, steps = found
                self.seen[:] = [(x, Dense(factor))]
                return (x,), steps
        tol = min(limits.tol, _NEAR)
        value, gradient = f.value_and_grad(x)
        going, left = steps == 0, len(x)
        for _ in range(most):
            if not left or limits.out_of_time():
                break
            d = self._fresh(f, x).solve(gradient).neg_()
            new, value, gradient = descended(f, x, value, gradient, d)
            steps += going
            moves = norm_event(new - x) > tol * norm_event(new)  # NaN ends
            x = new if left == len(x) else torch.where(expand(going, x), new, x)  # type: ignore[arg-type]
            going = going & moves
            left = int(going.sum())
        return (x,), steps

    def step(self, problem: Problem, z: Z) -> Z:
        (x,), f = z, problem.f
        assert f is not None
        H = self.hessian or self._at(f, x.detach())
        return (x - H.solve(f.grad(x)),)

    def near(self, problem: Problem, z: Z) -> Newton:
        assert problem.f is not None
        return self if self.hessian else replace(self, hessian=self._at(problem.f, z[0]))

    def _at(self, f: Smooth, x: Tensor) -> Form:
        """The Hessian at x, or the last one, if it is nearly that of x: of the step that has led to
        a solution."""
        if self.seen:
            there, H = self.seen[0]
            if there is x or bool((norm_event(x - there) <= _SAME * norm_event(x)).all()):
                return H
        return self._fresh(f, x.detach())

    def _fresh(self, f: Smooth, x: Tensor) -> Form:
        H = form(f, x)
        assert H is not None
        self.seen[:] = [(x, H)]
        return H

    @property
    def flat(self) -> bool:
        return self.hessian is not None and self.hessian.sound

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Armijo() if self.hessian is None else Plain()

    def take(self, index: Tensor) -> Newton:
        H = None if self.hessian is None else self.hessian.take(index)
        return replace(self, hessian=H, seen=[])
