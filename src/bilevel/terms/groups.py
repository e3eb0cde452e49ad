"""Group sparsity: groups given by labels, and sparsity within groups."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand, like, tiny
from .base import Dualizable, Proximable, Weighted
from .manifolds import Manifold, Radial, least, shared
from .norms import _clip, _clip_norm, _fitting, _indicator, _length


@dataclass(frozen=True, eq=False)
class GroupL2(Weighted, Proximable, Dualizable):
    """g(x) = sum over groups of weight |x_group|_2, the groups given by a label for each coordinate
    (Yuan, Lin 2006). Groups along a dim: L21. Overlapping groups: L21() @ Groups(indices).

    prox       (1 - step weight / |x_group|)_+ x_group
    conjugate  0 if every |y_group|_2 <= weight, else inf
    The weight broadcasts against one number a group, (B, groups, 1, ..., 1) of x's rank.
    """

    labels: Tensor  # (*event), whole numbers: coordinates of one label are a group
    count: int = field(init=False)  # of groups

    integers: ClassVar[tuple[str, ...]] = ("labels",)

    def __post_init__(self) -> None:
        labels = self.labels
        whole = isinstance(labels, Tensor) and not (
            labels.is_floating_point() or labels.is_complex()
        )
        if not whole or not labels.numel() or bool((labels < 0).any()):
            got = (
                f"{labels.dtype} of shape {tuple(labels.shape)}"
                if isinstance(labels, Tensor)
                else type(labels).__name__
            )
            raise ValueError(
                "GroupL2 needs a label for each coordinate, whole numbers from 0 on in a tensor of "
                f"the event's shape, got {got}. Groups that overlap: L21() @ Groups(indices)."
            )
        object.__setattr__(self, "count", int(labels.max()) + 1)

    def check(self, x: Tensor) -> None:
        if self.labels.shape != x.shape[1:]:
            raise ValueError(
                f"GroupL2.labels has shape {tuple(self.labels.shape)} at x of shape "
                f"{tuple(x.shape)}: one label for each coordinate of a sample is needed, "
                f"{tuple(x.shape[1:])}."
            )

    def density(self, x: Tensor) -> Tensor:  # (B, *event) -> (B, groups, 1, ..., 1)
        square = x.new_zeros(len(x), self.count)
        square = square.index_add(1, self.labels.flatten(), x.square().flatten(1))
        length = square.clamp_min(tiny(x)).sqrt()
        return length.reshape(*length.shape, *[1] * (x.ndim - 2))

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return x - self._project(x, expand(step, x) * self.weight)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:
        return self._project(y, self.weight)

    def _project(self, y: Tensor, radius: Tensor | float) -> Tensor:
        """Each group onto the ball of its radius."""
        length = self.density(y)
        radius = like(radius, y)  # as in _clip_norm
        ratio = radius / torch.maximum(length, radius).clamp_min(tiny(y))
        return y * self._each(ratio.expand_as(length), y)

    def conjugate(self, y: Tensor) -> Tensor:
        return _indicator(self.density(y), self.weight)

    def dual_scale(self, y: Tensor) -> Tensor:
        return _fitting(self.density(y), self.weight)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w = x + dual
        length = self.density(w)
        slack = length - shared(self.weight, length)
        each = self._each(slack, x)
        free, length = each > 0, self._each(length, x)
        curvature = torch.where(free, length / torch.where(free, each, 1.0) - 1, 0.0)
        none = torch.zeros_like(free)
        return Radial(free, least(slack.abs()), w / length, curvature, none, self._total)

    def _total(self, v: Tensor) -> Tensor:
        sums = v.new_zeros(len(v), self.count).index_add(1, self.labels.flatten(), v.flatten(1))
        return self._each(sums, v)

    def _each(self, group: Tensor, x: Tensor) -> Tensor:
        """One number a group, given to its coordinates."""
        return group.flatten(1)[:, self.labels.flatten()].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class SparseL21(Weighted, Proximable):
    """g(x) = sum over the vectors along `dim` of weight (ratio |x_group|_1 + (1 - ratio)
    |x_group|_2): few groups, and few coordinates in them (Simon et al. 2013).

    prox  soft threshold by step weight ratio, then the group's by step weight (1 - ratio)
    """

    ratio: Tensor | float = 0.5  # between 0, L21, and 1, L1
    dim: int = -1  # weight and ratio broadcast against x with this dim of size 1

    batched: ClassVar[tuple[str, ...]] = ("weight", "ratio")

    def density(self, x: Tensor) -> Tensor:
        ones = x.abs().sum(self.dim, keepdim=True)
        return self.ratio * ones + (1 - self.ratio) * _length(x, self.dim)

    def admissible(self, step: Tensor) -> Tensor:
        return step.amin(self.dim, keepdim=True)  # one a group

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        t = expand(step, x) * self.weight
        soft = x - _clip(x, t * self.ratio)
        return soft - _clip_norm(soft, t * (1 - self.ratio), self.dim)
