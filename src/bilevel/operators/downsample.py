"""Fewer pixels."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import pad

from .._broadcast import Scalar
from .base import Operator


@dataclass(frozen=True, eq=False)
class Downsample(Operator):
    """Every `factor`-th pixel of both image dims, or the mean of each block: (B, ..., H, W) -> (B,
    ..., H / factor, W / factor).

    A camera of low resolution is Downsample(f) @ Blur(kernel), or the block means.
    norm   1, of the block means 1 / factor; exact
    """

    factor: int
    average: bool = False  # the mean of each factor x factor block, not its first pixel

    def __post_init__(self) -> None:
        if not isinstance(self.factor, int) or self.factor < 1:
            raise ValueError(
                f"Downsample needs a factor, a whole number >= 1, got {self.factor!r}."
            )

    def __call__(self, x: Tensor) -> Tensor:
        f, image = self.factor, tuple(x.shape[-2:])
        if x.ndim < 3 or image[0] % f or image[1] % f:
            raise ValueError(
                f"Downsample({f}) needs x of shape (B, ..., H, W), H and W multiples of {f}, got "
                f"{tuple(x.shape)}. Crop the image."
            )
        if not self.average:
            return x[..., ::f, ::f]
        return x.unflatten(-1, (-1, f)).unflatten(-3, (-1, f)).mean((-3, -1))

    def adjoint(self, y: Tensor) -> Tensor:
        f = self.factor
        blocks = y[..., :, None, :, None]
        if self.average:
            blocks = (blocks / f**2).expand(*y.shape[:-1], f, y.shape[-1], f)  # (.., H', f, W', f)
        else:
            blocks = pad(blocks, (0, f - 1, 0, 0, 0, f - 1))
        return blocks.flatten(-4, -3).flatten(-2)

    def absolute(self) -> Downsample:
        return self

    def norm(self, x: Tensor) -> Scalar:
        return 1 / self.factor if self.average else 1.0
