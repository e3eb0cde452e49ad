"""DeclarativeNode: the solution of a smooth constrained problem as a differentiable function."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .._autocast import full_precision
from .._broadcast import difference, eps
from .._tangents import constant, differentiates
from ..checks import check_modes
from ..differentiation.certificate import Certificate, certified
from ..differentiation.chord import differentiable
from ..differentiation.inverse import Inverse
from ..differentiation.linear_solvers import LinearSolver
from ..differentiation.linearisation import Linearisation
from ..errors import KinkWarning, NotConverged, OnFail, fail
from .by_scipy import minimised
from .conditions import Conditions

Function = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class DeclarativeNode:
    """y(θ) = argmin over y of objective(y, *θ) with equality(y, *θ) = 0, inequality(y, *θ) <= 0.

    All three are smooth functions, written with torch: y (B, *event) -> (B,) the objective, ->
    (B, p) the constraints. The solution is found by SciPy, or by a solver of your own, and taken to
    rounding by Newton's method on the conditions of Karush, Kuhn and Tucker, of which it is the
    derivative, too: with H the Hessian of the Lagrangian, A that of the active constraints in y,

        dy/dθ = H^-1 A* (A H^-1 A*)^-1 (A H^-1 B - C) - H^-1 B,    B = d²L/dy dθ,  C = dc/dθ

    as one solve with [H A*; A 0] and one product with its right-hand side: neither B nor C is
    written out, and large systems are solved by products alone. Right up to derivative `order`;
    tensors that the functions close over have gradients as arguments have.

    A point where the objective falls along the constraints, a maximum or a saddle, is refused as
    NotConverged (looked at up to 160 numbers a sample). Active constraints whose gradients are
    dependent, and inequalities that are active without pressure, are said (KinkWarning): there the
    derivative is one of several, or of one side. A loss that reads what is not determined raises
    NotUnique.

    [1] Gould, Hartley, Campbell. Deep declarative networks. TPAMI, 2021.

    >>> import torch, bilevel as bl
    >>> sphere = bl.DeclarativeNode(
    ...     lambda y, x: (y - x).square().sum(1), lambda y, x: y.square().sum(1, keepdim=True) - 1
    ... )
    >>> x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    >>> y = sphere(x, y0=torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    >>> y.detach().round(decimals=6)
    tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """

    objective: Function
    equality: Function | None = None
    inequality: Function | None = None
    solver: Callable[..., Tensor] | None = None  # (y0, *θ) -> y, without a gradient
    linear_solver: LinearSolver | None = None  # default: dense for small systems, else GMRES
    order: int = 2
    tol: float = 1e-8  # of the conditions, relative, or what rounding allows
    on_fail: OnFail = "raise"

    def __call__(self, *theta: Tensor, y0: Tensor, report: Certificate | None = None) -> Tensor:
        """The solution, from the start y0 (B, *event)."""
        check_modes()
        certificate = report or Certificate()
        conditions = Conditions(self.objective, self.equality, self.inequality, theta)
        with full_precision():
            with constant():
                y = conditions.checked(y0)
                y = minimised(conditions, y) if self.solver is None else self._own(y, theta)
                conditions = conditions.at(y.detach())
                start = y.detach(), conditions.multipliers
                z = self._finished(conditions, start, certificate)  # type: ignore[arg-type]
                falls = conditions.falls(z)
                if bool(certificate.converged.all() and falls.any()):  # type: ignore[union-attr]
                    fail(_no_minimum(falls), self.on_fail)
                if doubt := conditions.doubt(z):
                    warnings.warn(doubt, KinkWarning, stacklevel=2)
            if not (differentiates() and conditions.varies(z[0])):
                return z[0]
            y, *_ = differentiable(
                z, conditions.residual, self.linear_solver, self.order, self.tol / 10,
                self.on_fail, certificate,
            )  # fmt: skip
        return certified(y, certificate)

    def _own(self, y0: Tensor, theta: tuple[Tensor, ...]) -> Tensor:
        """What the solver passed finds."""
        y = self.solver(y0, *theta)  # type: ignore[misc]
        if not isinstance(y, Tensor) or y.shape != y0.shape or y.dtype != y0.dtype:
            got = f"{tuple(y.shape)} of {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"the solver of a DeclarativeNode gives {got} for a start {tuple(y0.shape)} of "
                f"{y0.dtype}: a tensor like the start is needed."
            )
        return y

    def _finished(
        self, conditions: Conditions, z: tuple[Tensor, ...], certificate: Certificate
    ) -> tuple[Tensor, ...]:
        """Newton steps on the conditions, each kept where it halves what is left, and judged."""
        left = conditions.error(z)
        rounding = 64 * eps(left)
        for _ in range(20):
            if bool((left <= max(self.tol / 100, rounding)).all()):
                break
            M = Linearisation(z, conditions.residual)
            rest = M.flatten(M.residual).detach()
            step = M.split(Inverse(M, self.linear_solver)(rest, transposed=False).x)
            trial = difference(z, step)
            new = conditions.error(trial)
            better = new <= left / 2
            if not bool(better.any()):
                break
            z = tuple(
                torch.where(better.reshape(-1, *[1] * (a.ndim - 1)), a, b)
                for a, b in zip(trial, z, strict=True)
            )
            left = torch.where(better, new, left)
        certificate.solver, certificate.strategy = "DeclarativeNode", "Implicit"
        certificate.residual, certificate.converged = left, left <= max(self.tol, rounding)
        if not bool(certificate.converged.all()):
            fail(self._late(left, ~certificate.converged), self.on_fail)
        return z

    def _late(self, left: Tensor, failed: Tensor) -> NotConverged:
        return NotConverged(
            f"{int(failed.sum())} of {len(left)} samples of a DeclarativeNode satisfy its "
            f"optimality conditions to {float(left.max()):.1e} only, asked was {self.tol:.0e}. "
            "Have the constraints a point in common, is the objective bounded below and smooth "
            "there? Pass another y0, a solver of your own, a larger tol, or accept it with "
            "on_fail='warn'."
        )


def _no_minimum(falls: Tensor) -> NotConverged:
    return NotConverged(
        f"{int(falls.sum())} of {len(falls)} samples of a DeclarativeNode ended where the "
        "objective falls to both sides along its constraints: a maximum or a saddle, which a "
        "symmetric start, y0 = 0 say, may never leave. Pass another y0, or accept it with "
        "on_fail='warn'."
    )
