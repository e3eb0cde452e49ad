"""Groups of coordinates, which may overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar
from .base import Operator


@dataclass(frozen=True, eq=False)
class Groups(Operator):
    """x -> (x_i for i in group), one row a group: (B, n) -> (B, groups, size). Groups may overlap;
    for an overlapping group lasso L21() @ Groups(indices) (Jacob, Obozinski, Vert 2009).

    |K|^2 is the largest number of groups that a coordinate is in.
    """

    indices: Tensor  # (groups, size), whole numbers; -1 fills up shorter groups with zeros
    size: int  # n

    integers: ClassVar[tuple[str, ...]] = ("indices",)

    def __post_init__(self) -> None:
        i = self.indices
        whole = isinstance(i, Tensor) and not (i.is_floating_point() or i.is_complex())
        if not whole or i.ndim != 2 or not i.numel():
            got = f"{i.dtype} of shape {tuple(i.shape)}" if isinstance(i, Tensor) else i
            raise ValueError(
                f"Groups needs whole numbers in a tensor (groups, size), got {got}. Shorter groups "
                "are filled up with -1."
            )
        if bool((i < -1).any() | (i >= self.size).any()):
            raise ValueError(
                f"Groups has indices from {int(i.min())} to {int(i.max())} for {self.size} "
                f"coordinates: they lie between 0 and {self.size - 1}, or are -1 for none."
            )

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 2 or x.shape[1] != self.size:
            raise ValueError(
                f"Groups of {self.size} coordinates needs x of shape (B, {self.size}), got "
                f"{tuple(x.shape)}."
            )
        return x[:, self.indices.clamp(min=0)] * (self.indices >= 0)

    def adjoint(self, y: Tensor) -> Tensor:
        y = (y * (self.indices >= 0)).flatten(1)
        return y.new_zeros(len(y), self.size).index_add(1, self.indices.clamp(min=0).flatten(), y)

    def absolute(self) -> Groups:
        return self

    def norm(self, x: Tensor) -> Scalar:
        member = self.indices[self.indices >= 0]
        return float(torch.bincount(member, minlength=1).max()) ** 0.5
