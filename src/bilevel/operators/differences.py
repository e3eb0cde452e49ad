"""Finite differences."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from .._broadcast import Scalar
from .base import Operator, image_dims


@dataclass(frozen=True, eq=False)
class Gradient(Operator):
    """Forward differences along the last `dims` dims, 0 at the far edge (Chambolle 2004).

    (B, ..., H, W) -> (B, ..., dims, H, W); the new axis stands before the image dims. |K|^2 < 4
    dims.
    """

    dims: int = 2  # 1, 2 or 3

    def __post_init__(self) -> None:
        image_dims("Gradient", self.dims)

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim <= self.dims:
            raise ValueError(
                f"differences along {self.dims} image dims need x of shape (B, ..., *image), got "
                f"{tuple(x.shape)}. For one image pass x[None], as dim 0 is the batch; for a batch "
                f"of signals dims={max(1, x.ndim - 1)}."
            )
        from ..kernels import fields  # compiled when first used

        fast = fields.differences(x) if self.dims == 2 else None
        if fast is not None:
            return fast
        axes = range(-self.dims, 0)
        return torch.stack(
            [pad(x.diff(dim=axis), self._edge(axis, 0, 1)) for axis in axes], dim=-self.dims - 1
        )

    def adjoint(self, y: Tensor) -> Tensor:
        from ..kernels import fields, tension

        fast = tension.pull(y, self.dims) if fields.covered(y) else None
        if fast is not None:
            return fast
        total = None
        for axis, part in zip(range(-self.dims, 0), y.unbind(-self.dims - 1), strict=True):
            inner = part.narrow(axis, 0, part.shape[axis] - 1)  # the last difference is always 0
            term = pad(inner, self._edge(axis, 1, 0)) - pad(inner, self._edge(axis, 0, 1))
            total = term if total is None else total + term
        assert total is not None
        return total

    @staticmethod
    def _edge(axis: int, before: int, after: int) -> tuple[int, ...]:
        return (0, 0) * (-axis - 1) + (before, after)  # pad() counts dims from the last

    def absolute(self) -> AbsoluteGradient:
        return AbsoluteGradient(self.dims)

    def norm(self, x: Tensor) -> Scalar:
        """Exact: sqrt(sum over dims of 4 cos^2(pi / 2n))."""
        sizes = x.shape[x.ndim - self.dims :]
        return math.sqrt(sum(4 * math.cos(math.pi / (2 * n)) ** 2 for n in sizes))


@dataclass(frozen=True, eq=False)
class AbsoluteGradient(Operator):
    """The gradient with its minus signs turned: sums of neighbours, 0 at the far edge."""

    dims: int

    def __call__(self, x: Tensor) -> Tensor:
        sums = []
        for axis in range(-self.dims, 0):
            n = x.shape[axis] - 1
            both = x.narrow(axis, 0, n) + x.narrow(axis, 1, n)
            sums.append(pad(both, Gradient._edge(axis, 0, 1)))
        return torch.stack(sums, dim=-self.dims - 1)

    def adjoint(self, y: Tensor) -> Tensor:
        total = torch.zeros_like(y.select(-self.dims - 1, 0))
        for axis, part in zip(range(-self.dims, 0), y.unbind(-self.dims - 1), strict=True):
            inner = part.narrow(axis, 0, part.shape[axis] - 1)
            total = total + pad(inner, Gradient._edge(axis, 1, 0))
            total = total + pad(inner, Gradient._edge(axis, 0, 1))
        return total
