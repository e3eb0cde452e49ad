"""The conditions of Karush, Kuhn and Tucker, as an equation in the solution and its multipliers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import eps, norm_event, tiny
from .._tangents import depends
from ..differentiation.linear_solvers import pseudo_solve
from ..differentiation.linearisation import DENSE, Linearisation

_NEAR = 1e-5  # the slack, against the constraint's gradient, below which an inequality is active
_SMALL = 1e-3  # |y| below which a distance is no longer told relative to it
_WEAK = 1e-6  # the pressure, against the objective's steepness, that hardly holds one active


@dataclass(frozen=True, eq=False)
class Conditions:
    """d/dy [objective + <nu, c>] = 0; c_i = 0 where constraint i is active, else nu_i = 0."""

    objective: Callable[..., Tensor]
    equality: Callable[..., Tensor] | None
    inequality: Callable[..., Tensor] | None
    theta: tuple[Tensor, ...]
    active: Tensor | None = None  # (B, p) bool
    multipliers: Tensor | None = None  # (B, p)
    lengths: Tensor | None = None  # (B, p): of the constraints' gradients
    dependent: Tensor | None = None  # (B,) bool: the active gradients

    def value(self, y: Tensor) -> Tensor:  # -> (B,)
        return self.objective(y, *self.theta)

    def constraints(self, y: Tensor) -> Tensor:  # -> (B, p): the equalities first
        parts = [c(y, *self.theta) for c in (self.equality, self.inequality) if c is not None]
        return torch.cat(parts, 1) if parts else y.new_zeros(len(y), 0)

    def equalities(self, y: Tensor) -> int:
        return 0 if self.equality is None else self.equality(y, *self.theta).shape[1]

    def varies(self, y: Tensor) -> bool:
        """Whether the functions have a derivative in anything but y: in θ, or in a closure."""
        return depends((self.value(y), self.constraints(y)))

    def checked(self, y: object) -> Tensor:
        """y, if the functions have the shapes that are needed there, and the objective a slope."""
        if not isinstance(y, Tensor) or y.ndim < 2 or not y.is_floating_point():
            got = f"{tuple(y.shape)}, {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(
                f"a DeclarativeNode needs y0 of shape (B, *event), real, got {got}. For one "
                "problem pass y0[None]."
            )
        point = y.detach().clone().requires_grad_()
        for name, rank in (("objective", 1), ("equality", 2), ("inequality", 2)):
            function = getattr(self, name)
            if function is not None:
                with torch.enable_grad():
                    _check(name, function(point, *self.theta), rank, point)
        return point.detach()

    def residual(self, z: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        y, nu = z
        with torch.enable_grad():
            point = y if y.requires_grad else y.detach().requires_grad_()
            c = self.constraints(point)
            energy = self.value(point).sum() + (nu * c).sum()
            (slope,) = torch.autograd.grad(energy, point, create_graph=True)
        return slope, torch.where(self.active, c, nu)  # type: ignore[arg-type]

    def error(self, z: tuple[Tensor, ...]) -> Tensor:  # -> (B,)
        """How far the conditions are from holding: the slope against `steepness`, the distance to
        each constraint against |y|."""
        y, _ = z
        slope, c = (part.detach() for part in self.residual(z))
        missed = torch.where(self.active, c, self.constraints(y).detach().clamp(min=0))  # type: ignore[arg-type]
        apart = norm_event(missed / self.lengths) / norm_event(y).clamp_min(_SMALL)
        return norm_event(slope) / self.steepness(y).clamp_min(tiny(y)) + apart

    def steepness(self, y: Tensor) -> Tensor:  # -> (B,)
        """|g| + |H y|, the objective's gradient and Hessian: what a slope at y is measured against,
        in the units of the objective."""
        along = torch.where(y < 0, y - _SMALL, y + _SMALL).detach()  # y = 0 has a scale, too
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            (pull,) = torch.autograd.grad(self.value(point).sum(), point, create_graph=True)
            bend = _gradient((pull * along).sum(), point)
        return norm_event(pull.detach()) + (0.0 if bend is None else norm_event(bend))

    def at(self, y: Tensor) -> Conditions:
        """The same, with the constraints that are active at y, and their multipliers.

        nu: least squares of dL/dy = 0; an inequality that would have to pull is not active.
        """
        with torch.enable_grad():
            point = y.detach().requires_grad_()
            c = self.constraints(point)
            (slope,) = torch.autograd.grad(self.value(point).sum(), point)
            A = _rows(c, point)
        first, lengths = self.equalities(y), A.norm(dim=2).clamp_min(tiny(y))
        slack = c.detach() / lengths
        active = slack >= -_NEAR
        active[:, :first] = True
        for _ in range(c.shape[1] + 1):
            used = A * active[:, :, None]
            gram = used @ used.mT + torch.diag_embed((~active).to(y))
            right = torch.where(active, -(A @ slope.flatten(1)[..., None])[..., 0], 0.0)
            nu = pseudo_solve(gram, right) if c.shape[1] else right
            pulls = active & (nu < -_WEAK * norm_event(slope)[:, None] / lengths)
            pulls[:, :first] = False
            if not bool(pulls.any()):
                break
            active = active & ~(pulls & (nu == nu.amin(1, keepdim=True)))
        rank = torch.linalg.matrix_rank(used, rtol=1e-7)
        dependent = rank < active.sum(1)
        return replace(self, active=active, multipliers=nu, lengths=lengths, dependent=dependent)

    def falls(self, z: tuple[Tensor, ...]) -> Tensor:  # -> (B,) bool
        """Whether the Lagrangian's Hessian has a negative eigenvalue along the active constraints:
        then z, where the first derivatives vanish, is no minimum. Of up to `DENSE` numbers a
        sample, else nobody has looked; nor where multipliers are not unique."""
        assert self.active is not None and self.dependent is not None
        y, nu = z
        n = y.shape[1:].numel()
        if not len(y) or n + nu.shape[1] > DENSE:
            return torch.zeros(len(y), dtype=torch.bool, device=y.device)
        matrix, eye = Linearisation(z, self.residual).matrix(), torch.eye(n).to(y)
        H, A = matrix[:, :n, :n], matrix[:, n:, :n] * self.active[:, :, None]
        P = eye - torch.linalg.pinv(A) @ A if A.shape[1] else eye
        slight = max(_WEAK, eps(y) ** 0.5) * torch.linalg.matrix_norm(H)  # what is no curvature
        reduced = P @ ((H + H.mT) / 2) @ P + slight.clamp_min(tiny(y))[:, None, None] * eye
        return (torch.linalg.cholesky_ex(reduced).info > 0) & ~self.dependent

    def doubt(self, z: tuple[Tensor, ...]) -> str:
        """What is wrong with the point, in words; empty if nothing is."""
        y, nu = z
        assert self.active is not None and self.lengths is not None and self.dependent is not None
        if bool(self.dependent.any()):
            return (
                f"the gradients of the active constraints are dependent in "
                f"{int(self.dependent.sum())} of {len(y)} samples: their multipliers are not "
                "unique, and the derivative exists only in directions that keep them consistent. "
                "Leave out what is redundant."
            )
        weak = self.active & (nu.abs() * self.lengths <= _WEAK * self.steepness(y)[:, None])
        weak[:, : self.equalities(y)] = False
        if bool(weak.any()):
            return (
                f"{int(weak.any(1).sum())} of {len(y)} samples lie on an inequality that does not "
                "press: only directional derivatives exist there. The gradient is that with the "
                "inequality active."
            )
        return ""


def _check(name: str, found: object, rank: int, y: Tensor) -> None:
    if not isinstance(found, Tensor) or found.ndim != rank or len(found) != len(y):
        got = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(
            f"{name} of a DeclarativeNode must return {'(B,)' if rank == 1 else '(B, p)'} for y of "
            f"shape {tuple(y.shape)}, got {got}: numbers of each sample alone."
        )
    if found.dtype != y.dtype:
        raise TypeError(
            f"{name} of a DeclarativeNode gives {found.dtype} for y of {y.dtype}: the same is "
            "needed. Pass y0 in the dtype of the other arguments."
        )
    if name == "objective" and _gradient(found.sum(), y) is None:
        raise ValueError(
            "objective of a DeclarativeNode has no gradient in y. Compute it from y with torch, "
            "without detach(), item() or NumPy."
        )


def _gradient(value: Tensor, y: Tensor) -> Tensor | None:
    """d value/dy, None if the value is not computed from y."""
    if not value.requires_grad:
        return None
    return torch.autograd.grad(value, y, retain_graph=True, allow_unused=True)[0]


def _rows(c: Tensor, y: Tensor) -> Tensor:  # -> (B, p, n), detached
    """dc/dy, row by row."""
    if c.shape[1] > 8 * DENSE:
        raise ValueError(
            f"a DeclarativeNode writes out the gradients of its constraints, and has "
            f"{c.shape[1]} of them a sample: more than {8 * DENSE}."
        )
    rows = [_gradient(column.sum(), y) for column in c.unbind(1)]
    rows = [torch.zeros_like(y) if row is None else row.detach() for row in rows]
    return torch.stack(rows, 1).flatten(2) if rows else y.new_zeros(len(y), 0, y.shape[1:].numel())
