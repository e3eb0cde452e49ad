"""Newton's method."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from ..acceleration import Acceleration, Armijo, Plain
from ..problem import Problem
from .base import Solver, Z, names, refuse
from .forms import DENSE, Form, form


@dataclass(frozen=True, eq=False)
class Newton(Solver):
    """min f(x), convex and smooth: T(x) = x - H^-1 grad f(x), H the Hessian at x.

    A quadratic f is solved in one step: by division where H is diagonal, by fast transforms where
    it is diagonal there, else by the Cholesky factor of an n x n matrix, n <= 1500. Diagonal are,
    for the cosine transform, least squares of x, of its Gradient and of its Blur with mirrored
    edges by an even kernel; for the Fourier transform, of x and of its Blur with Periodic() edges.

    Else one Hessian and one factor a step, and the run halves the step until f falls (Armijo 1966):
    quadratic convergence near the solution, where T is plain.
    dT/dx = 0 at the solution: one step carries the derivative.

    [1] Nocedal, Wright. Numerical Optimization, ch. 3. 2006.
    """

    hessian: Form | None = None  # of a quadratic f, or that of the solution; set by the run

    newton, recordable, stride = True, False, 2

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
        return self

    def step(self, problem: Problem, z: Z) -> Z:
        (x,), f = z, problem.f
        assert f is not None
        H = self.hessian or form(f, x.detach())
        assert H is not None
        return (x - H.solve(f.grad(x)),)

    def near(self, problem: Problem, z: Z) -> Newton:
        assert problem.f is not None
        return self if self.hessian else replace(self, hessian=form(problem.f, z[0].detach()))

    @property
    def flat(self) -> bool:
        return self.hessian is not None and self.hessian.sound

    def acceleration(self, problem: Problem, x0: Tensor, tol: float) -> Acceleration:
        return Armijo() if self.hessian is None else Plain()

    def take(self, index: Tensor) -> Newton:
        return self if self.hessian is None else replace(self, hessian=self.hessian.take(index))
