"""The smooth sets on which non-smooth terms are smooth, seen from a point of them.

A term J is *partly smooth* at u if J is smooth along a manifold M through u and has a kink across
it (Lewis 2002). With a subgradient y inside the relative interior of the subdifferential (strict
complementarity), M is where u stays when the problem moves, and

    D prox_J(u + y) = (1 + H)^-1 P,

P the projection onto M's tangent space T, H the second derivative of J along M, with the curvature
of M (Weingarten's map of y's normal part) in it [1]. That equation is the law of every manifold
here, and gives those of terms that declare none (of_prox.py).

[1] Daniilidis, Hare, Malick. Geometrical interpretation of the predictor-corrector type algorithms
    in structured optimization problems. Optimization, 2006.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Manifold(ABC):
    """M at one point for each sample of a batch."""

    support: Tensor  # (B, *event) bool: where a tangent vector can be other than 0
    # (B,): the least slack of the conditions on u + y that make M what it is; 0 at a kink, nan
    # where it is not known
    margin: Tensor

    @property
    @abstractmethod
    def signature(self) -> Tensor:
        """(B, k), whole numbers: equal exactly where M is the same."""

    @abstractmethod
    def project(self, v: Tensor) -> Tensor:  # (B, *event) -> (B, *event)
        """P v."""

    @abstractmethod
    def hessian(self, v: Tensor) -> Tensor:  # (B, *event) -> (B, *event)
        """H v, for a v in T."""

    def contract(self, v: Tensor) -> Tensor:  # (B, *event) -> (B, *event)
        """(1 + H)^-1 P v, the derivative of prox; here of a flat M."""
        return self.project(v)

    def basis(self) -> Tensor:  # (B, n, t)
        """Orthonormal columns that span T; for samples with a smaller T, columns of 0 follow."""
        index, valid = places(self.support.flatten(1))
        shape, (batch, k) = self.support.shape, index.shape
        columns = []
        for j in range(k):
            unit = torch.zeros_like(self.margin[:, None] * self.support.flatten(1))
            unit.scatter_(1, index[:, j : j + 1], valid[:, j : j + 1].to(unit))
            columns.append(self.project(unit.reshape(shape)).flatten(1).gather(1, index))
        matrix = torch.stack(columns, 2) if k else self.margin.new_zeros(batch, 0, 0)
        values, vectors = torch.linalg.eigh(matrix * valid[:, :, None])
        inside = values > 0.5  # the eigenvalues of a projection are 0 and 1
        t = int(inside.sum(1).max()) if k and batch else 0
        vectors = (vectors * inside[:, None])[:, :, k - t :]
        whole = vectors.new_zeros(batch, self.support.flatten(1).shape[1], t)
        return whole.scatter_add(1, index[..., None].expand(-1, -1, t), vectors * valid[..., None])


def segments(p: Tensor, slack: Tensor, dim: int = -1) -> Clusters:
    """Runs of equal entries along a dim move together, held by the slack of their edges, along the
    last."""
    lines = p.movedim(dim, -1)
    rise = lines.diff(dim=-1)
    head = torch.nn.functional.pad(rise != 0, (1, 0), value=True)
    number = (head.flatten(1).cumsum(1) - 1).reshape(lines.shape)
    margin = least(torch.where(rise != 0, rise.abs(), slack))
    ones = torch.ones_like(p)
    return Clusters(ones > 0, margin, number.movedim(-1, dim).flatten(1), ones)


def places(mask: Tensor) -> tuple[Tensor, Tensor]:  # (B, n) -> (B, k), (B, k)
    """(where the mask is true, whether that entry counts): k the most over the batch."""
    k = int(mask.sum(1).max()) if mask.numel() else 0
    valid, index = mask.to(torch.int8).sort(dim=1, descending=True, stable=True)
    return index[:, :k], valid[:, :k].bool()


Total = Callable[[Tensor], Tensor]  # the sum over each group, shaped to broadcast against x


def total(dim: int | tuple[int, ...]) -> Total:
    """For groups that lie along dims."""
    return lambda v: v.sum(dim, keepdim=True)


def everything(x: Tensor) -> tuple[int, ...]:
    """The dims of the event."""
    return tuple(range(1, x.ndim))


def least(slack: Tensor) -> Tensor:  # (B, *event) -> (B,)
    """The least slack of each sample; inf where there is no condition."""
    flat = slack.flatten(1)
    return flat.amin(1) if flat.shape[1] else flat.new_full((len(flat),), torch.inf)


@dataclass(frozen=True, eq=False)
class Coordinates(Manifold):
    """The coordinates of the support are free, the others fixed; H is diagonal."""

    curvature: Tensor | float = 0.0  # H, broadcasts against v

    @property
    def signature(self) -> Tensor:
        return self.support.flatten(1)

    def project(self, v: Tensor) -> Tensor:
        return v * self.support

    def hessian(self, v: Tensor) -> Tensor:
        return self.curvature * v

    def contract(self, v: Tensor) -> Tensor:
        return self.project(v) / (1 + self.curvature)

    def basis(self) -> Tensor:
        index, valid = places(self.support.flatten(1))
        whole = self.margin.new_zeros(len(index), self.support.flatten(1).shape[1], index.shape[1])
        return whole.scatter(1, index[:, None], valid[:, None].to(whole))


@dataclass(frozen=True, eq=False)
class Clusters(Manifold):
    """v = sign * (one number a cluster): coordinates that move together. M is flat."""

    label: Tensor  # (B, n): the cluster of a coordinate, 0 ... n - 1; read on the support only
    sign: Tensor  # (B, *event): 1 or -1

    @property
    def signature(self) -> Tensor:
        signed = (self.label + 1) * self.sign.flatten(1).to(self.label)
        return torch.where(self.support.flatten(1), signed, 0)

    def project(self, v: Tensor) -> Tensor:
        total = self._sums(v * self.sign * self.support) / self._sizes()
        return total.gather(1, self.label).reshape(v.shape) * self.sign * self.support

    def hessian(self, v: Tensor) -> Tensor:
        return torch.zeros_like(v)

    def basis(self) -> Tensor:
        some = self._sums(self.support.to(self.margin)) > 0
        index, valid = places(some)
        member = (self.label[..., None] == index[:, None]) & valid[:, None]  # (B, n, t)
        column = (self.sign * self.support).flatten(1) / self._sizes().gather(1, self.label).sqrt()
        return member * column[..., None]

    def _sums(self, v: Tensor) -> Tensor:  # (B, *event) -> (B, n), one a cluster
        flat = v.flatten(1)
        return torch.zeros_like(flat).scatter_add(1, self.label, flat)

    def _sizes(self) -> Tensor:
        return self._sums(self.support.to(self.margin)).clamp(min=1)


@dataclass(frozen=True, eq=False)
class Face(Manifold):
    """The free coordinates of each group have sum sign * v = 0, where the group is tied."""

    sign: Tensor  # (B, *event): 1 or -1
    tied: Tensor  # one a group, broadcasts against x
    total: Total

    @property
    def signature(self) -> Tensor:
        return torch.cat(
            [(self.support * self.sign).flatten(1).long(), self.tied.flatten(1).long()], 1
        )

    def project(self, v: Tensor) -> Tensor:
        normal = self.sign * self.support
        mean = self.total(normal * v) / self.total(self.support.to(v)).clamp(min=1)
        return v * self.support - self.tied * mean * normal

    def hessian(self, v: Tensor) -> Tensor:
        return torch.zeros_like(v)


@dataclass(frozen=True, eq=False)
class Radial(Manifold):
    """Vectors, groups of coordinates, that are 0, or free, or tied to a sphere.

    H v = curvature (v - direction <direction, v>)
    """

    direction: Tensor  # (B, *event), of length 1 in each group that is not 0
    curvature: Tensor  # one a group, broadcasts against x
    tied: Tensor  # whether the group stays at its length, broadcasts against x
    total: Total

    @property
    def signature(self) -> Tensor:
        return (self.support.long() + self.tied * self.support).flatten(1)

    def project(self, v: Tensor) -> Tensor:
        v = v * self.support
        return v - self.tied * self._radial(v)

    def hessian(self, v: Tensor) -> Tensor:
        return torch.where(self.support, self.curvature * (v - self._radial(v)), 0.0)

    def contract(self, v: Tensor) -> Tensor:
        v = self.project(v)
        radial = self._radial(v)
        return radial + (v - radial) / (1 + self.curvature)

    def _radial(self, v: Tensor) -> Tensor:
        return self.direction * self.total(self.direction * v)


def shared(value: Tensor | float, like: Tensor) -> Tensor:
    """A weight or bound as a detached tensor that broadcasts against x."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device).detach()
