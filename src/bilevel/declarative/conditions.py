"""The conditions of Karush, Kuhn and Tucker, as an equation in the solution and its multipliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import norm_event, tiny
from ..differentiation.linear_solvers import pseudo_solve
from ..differentiation.linearisation import DENSE

_NEAR = 1e-5  # the slack, against the constraint's gradient, below which an inequality is active
_WEAK = 1e-6  # the pressure, against the objective's gradient, that hardly holds one active


@dataclass(frozen=True, eq=False)
class Conditions:
    """d/dy [objective + <nu, c>] = 0; c_i = 0 where constraint i is active, else nu_i = 0."""

    objective: Callable[..., Tensor]
    equality: Callable[..., Tensor] | None
    inequality: Callable[..., Tensor] | None
    theta: tuple[Tensor, ...]
    active: Tensor | None = None  # (B, p) bool
    multipliers: Tensor | None = None  # (B, p)
    dependent: Tensor | None = None  # (B,) bool: the active gradients

    def value(self, y: Tensor) -> Tensor:  # -> (B,)
        return self.objective(y, *self.theta)

    def constraints(self, y: Tensor) -> Tensor:  # -> (B, p): the equalities first
        parts = [c(y, *self.theta) for c in (self.equality, self.inequality) if c is not None]
        return torch.cat(parts, 1) if parts else y.new_zeros(len(y), 0)

    def equalities(self, y: Tensor) -> int:
        return 0 if self.equality is None else self.equality(y, *self.theta).shape[1]

    def checked(self, y: Tensor) -> Tensor:
        """y, if the functions have the shapes that are needed there."""
        if y.ndim < 2 or not y.is_floating_point():
            raise ValueError(
                f"a DeclarativeNode needs y0 of shape (B, *event), real, got {tuple(y.shape)}, "
                f"{y.dtype}. For one problem pass y0[None]."
            )
        for name in ("objective", "equality", "inequality"):
            function = getattr(self, name)
            if function is None:
                continue
            found = function(y, *self.theta)
            needed = "(B,)" if name == "objective" else "(B, p)"
            rank = 1 if name == "objective" else 2
            if not isinstance(found, Tensor) or found.ndim != rank or len(found) != len(y):
                got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(
                    f"{name} of a DeclarativeNode must return {needed} for y of shape "
                    f"{tuple(y.shape)}, got {got}: numbers of each sample alone."
                )
        return y

    def residual(self, z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        y, nu = z
        with torch.enable_grad():
            point = y if y.requires_grad else y.detach().requires_grad_()
            c = self.constraints(point)
            energy = self.value(point).sum() + (nu * c).sum()
            (slope,) = torch.autograd.grad(energy, point, create_graph=True)
        return slope, torch.where(self.active, c, nu)  # type: ignore[arg-type]

    def error(self, z: tuple[Tensor, ...]) -> Tensor:  # -> (B,)
        """How far the conditions are from holding, against the gradients that balance."""
        y, nu = z
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            (pull,) = torch.autograd.grad(self.value(point).sum(), point)
        slope, c = (part.detach() for part in self.residual(z))
        violated = torch.where(self.active, 0.0, self.constraints(y).detach()).clamp(min=0)  # type: ignore[arg-type]
        scale = norm_event(pull) + norm_event(slope - pull) + norm_event(y).clamp_min(1e-3)
        return (norm_event(slope) + norm_event(c) + norm_event(violated)) / scale.clamp_min(tiny(y))

    def at(self, y: Tensor) -> Conditions:
        """The same, with the constraints that are active at y, and their multipliers.

        nu: least squares of dL/dy = 0; an inequality that would have to pull is not active.
        """
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            c = self.constraints(point)
            (slope,) = torch.autograd.grad(self.value(point).sum(), point)
            A = _rows(c, point)
        first = self.equalities(y)
        slack = c.detach() / A.norm(dim=2).clamp_min(tiny(y))
        active = slack >= -_NEAR
        active[:, :first] = True
        for _ in range(c.shape[1] + 1):
            used = A * active[:, :, None]
            gram = used @ used.mT + torch.diag_embed((~active).to(y))
            right = torch.where(active, -(A @ slope.flatten(1)[..., None])[..., 0], 0.0)
            nu = pseudo_solve(gram, right) if c.shape[1] else right
            pulls = active & (nu < -_WEAK * norm_event(slope)[:, None] / _length(A))
            pulls[:, :first] = False
            if not bool(pulls.any()):
                break
            active = active & ~(pulls & (nu == nu.amin(1, keepdim=True)))
        rank = torch.linalg.matrix_rank(used, rtol=1e-7)
        return replace(self, active=active, multipliers=nu, dependent=rank < active.sum(1))

    def doubt(self, z: tuple[Tensor, ...]) -> str:
        """What is wrong with the point, in words; empty if nothing is."""
        y, nu = z
        assert self.active is not None and self.dependent is not None
        if bool(self.dependent.any()):
            return (
                f"the gradients of the active constraints are dependent in "
                f"{int(self.dependent.sum())} of {len(y)} samples: their multipliers are not "
                "unique, and the derivative exists only in directions that keep them consistent. "
                "Leave out what is redundant."
            )
        first = self.equalities(y)
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            pull = norm_event(torch.autograd.grad(self.value(point).sum(), point)[0])
            length = _length(_rows(self.constraints(point), point))
        weak = self.active & (nu.abs() * length <= _WEAK * pull[:, None].clamp_min(_WEAK))
        weak[:, :first] = False
        if bool(weak.any()):
            return (
                f"{int(weak.any(1).sum())} of {len(y)} samples lie on an inequality that does not "
                "press: only directional derivatives exist there. The gradient is that with the "
                "inequality active."
            )
        return ""


def _rows(c: Tensor, y: Tensor) -> Tensor:  # -> (B, p, n), detached
    """dc/dy, row by row."""
    if c.shape[1] > 8 * DENSE:
        raise ValueError(
            f"a DeclarativeNode writes out the gradients of its constraints, and has "
            f"{c.shape[1]} of them a sample: more than {8 * DENSE}."
        )
    if not c.requires_grad:
        return y.new_zeros(*c.shape, y[0].numel()).detach()
    rows = [torch.autograd.grad(column.sum(), y, retain_graph=True)[0] for column in c.unbind(1)]
    return torch.stack(rows, 1).flatten(2)


def _length(A: Tensor) -> Tensor:  # (B, p, n) -> (B, p)
    return A.norm(dim=2).clamp_min(tiny(A))
