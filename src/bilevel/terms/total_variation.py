"""Total variation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..operators.differences import Gradient
from .base import Composed, Weighted
from .norms import L1, L21, _length


@dataclass(frozen=True, eq=False)
class TotalVariation(Weighted, Composed):
    """TV(x) = sum over pixels of weight |(Dx)_pixel|, D the forward differences along the last
    `dims` dims (0 at the edge).

    Isotropic: the 2-norm of a pixel's differences (Rudin, Osher, Fatemi 1992); anisotropic: their
    1-norm. Channels and other leading dims are separate images. Per-pixel weights have the image's
    shape.
    """

    dims: int = 2  # 1, 2 or 3
    isotropic: bool = True

    batched: ClassVar[tuple[str, ...]] = ("weight",)

    def __post_init__(self) -> None:
        if not isinstance(self.dims, int) or self.dims not in (1, 2, 3):
            raise ValueError(
                f"TotalVariation needs dims 1, 2 or 3, got {self.dims!r}: the number of trailing "
                "image dims."
            )

    @property
    def operator(self) -> Gradient:  # type: ignore[override]
        return Gradient(self.dims)

    @property
    def outer(self) -> L21 | L1:  # type: ignore[override]
        weight = self.weight
        if isinstance(weight, Tensor) and weight.ndim > self.dims:
            weight = weight.unsqueeze(-self.dims - 1)  # the same for all differences of a pixel
        if self.isotropic and self.dims > 1:
            return L21(dim=-self.dims - 1, weight=weight)
        return L1(weight=weight)

    def density(self, x: Tensor) -> Tensor:  # (B, ..., H, W) -> the same
        differences, axis = self.operator(x), -self.dims - 1
        if self.isotropic:
            return _length(differences, axis).squeeze(axis)
        return differences.abs().sum(axis)
