"""Total variation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from ..operators.differences import Gradient
from .base import Composed, Proximable, Weighted
from .manifolds import Manifold, segments, shared
from .norms import L1, L21, _length


@dataclass(frozen=True, eq=False)
class TotalVariation(Weighted, Composed):
    """TV(x) = sum over pixels of weight |(Dx)_pixel|, D the forward differences along the last
    `dims` dims (0 at the edge).

    isotropic    the 2-norm of a pixel's differences [1]; else their 1-norm
    coupled      the dim before the image dims holds the channels of one image, and the 2-norms go
                 over the differences of all of them [2]: edges at the same place are cheaper. Else
                 channels and other leading dims are separate images
    weight       per pixel of the shape of the image, coupled with one channel: (B, 1, H, W)

    Signals have an exact prox, images and coupled channels have none: TotalVariation(dims=1) is a
    TotalVariation1D.
    [1] Rudin, Osher, Fatemi. Nonlinear total variation based noise removal. Physica D, 1992.
    [2] Bresson, Chan. Fast dual minimization of the vectorial total variation norm. IPI, 2008.
    """

    dims: int = 2  # 1, 2 or 3
    isotropic: bool = True
    coupled: bool = False

    batched: ClassVar[tuple[str, ...]] = ("weight",)

    def __new__(
        cls,
        dims: int = 2,
        isotropic: bool = True,
        coupled: bool = False,
        *,
        weight: Tensor | float = 1.0,
    ) -> TotalVariation | TotalVariation1D:  # type: ignore[misc]
        alone = dims == 1 and not coupled
        return TotalVariation1D(weight=weight) if alone else super().__new__(cls)

    def __post_init__(self) -> None:
        if not isinstance(self.dims, int) or self.dims not in (1, 2, 3):
            raise ValueError(
                f"TotalVariation needs dims 1, 2 or 3, got {self.dims!r}: the number of trailing "
                "image dims."
            )

    def check(self, x: Tensor) -> None:
        if self.coupled and x.ndim < self.dims + 2:
            raise ValueError(
                f"TotalVariation(dims={self.dims}, coupled=True) needs x of shape (B, ..., "
                f"channels, *image), got {tuple(x.shape)}: the dim before the image dims is the "
                "batch. For one colour image pass x[None]; for gray ones leave coupled out."
            )

    @property
    def _axes(self) -> int | tuple[int, ...]:
        """Of the differences (B, ..., channels, dims, *image): those that a 2-norm goes over."""
        channels, differences = -self.dims - 2, -self.dims - 1
        if self.coupled and self.isotropic:
            return channels, differences
        return channels if self.coupled else differences

    @property
    def operator(self) -> Gradient:  # type: ignore[override]
        return Gradient(self.dims)

    @property
    def outer(self) -> L21 | L1:  # type: ignore[override]
        weight = self.weight
        if isinstance(weight, Tensor) and weight.ndim > self.dims:
            weight = weight.unsqueeze(-self.dims - 1)  # the same for all differences of a pixel
        if self.isotropic or self.coupled:
            return L21(dim=self._axes, weight=weight)
        return L1(weight=weight)

    def rest(self, x: Tensor) -> Tensor:  # one 0: as many as differences take a step's time
        at = x.ndim - self.dims
        return x.new_zeros(()).expand(*x.shape[:at], self.dims, *x.shape[at:])

    def ascend(self, y: Tensor, x: Tensor, step: Scalar) -> Tensor:
        from ..kernels import tension  # compiled when first used

        kind = {"dims": self.dims, "isotropic": self.isotropic, "coupled": self.coupled}
        new = tension.ascend(y, x, step, self.weight, **kind)
        return super().ascend(y, x, step) if new is None else new

    def pull(self, y: Tensor) -> Tensor:
        from ..kernels import tension

        x = tension.pull(y, self.dims)
        return super().pull(y) if x is None else x

    def add_pull(self, y: Tensor, total: Tensor) -> None:
        total += self.pull(y)

    def density(self, x: Tensor) -> Tensor:  # (B, ..., H, W) -> the same, channels 1 if coupled
        self.check(x)
        differences, axis = self.operator(x), -self.dims - 1
        if self.isotropic or self.coupled:
            return _length(differences, self._axes).sum(axis)
        return differences.abs().sum(axis)


@dataclass(frozen=True, eq=False)
class TotalVariation1D(Weighted, Proximable):
    """TV(x) = sum over edges of weight |x_{i+1} - x_i|, along the last dim: TotalVariation(dims=1).

    prox        the taut string: the exact minimiser, in linear time on every signal, on the CPU
    derivative  in x the average over each segment S_k on which the prox is constant; in
                t = step weight, (s_k - s_{k-1}) / |S_k| on S_k, with the signs s of its jumps. Of
                every order, both ways; the second is zero. Where segments touch, that of one side

    Channels and other leading dims are separate signals. The weight broadcasts against the edges,
    (B, ..., n - 1): (n - 1,) is one an edge. Edges of weight 0 part the signal, edges of weight inf
    join it. What is not finite spreads up to the nearest edges of weight 0.
    [1] Condat. A direct algorithm for 1-D total variation denoising. IEEE SPL, 2013.
    [2] Davies, Kovac. Local extremes, runs, strings and multiresolution. Ann. Statist., 2001.
    """

    def density(self, x: Tensor) -> Tensor:  # (B, ..., n) -> (B, ..., n - 1)
        return x.diff(dim=-1).abs()

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        from ..kernels import tv1d  # compiled when first used

        u = tv1d.prox(*self._rows(x, step))
        return u if x.ndim == 2 else u.reshape(x.shape)

    def degrees_of_freedom(self, x: Tensor, step: Scalar = 1.0) -> Tensor:  # -> (B,), integers
        """The trace of the derivative of prox in x: the number of its segments."""
        from ..kernels import tv1d

        return tv1d.segments(*self._rows(x, step)).reshape(len(x), -1).sum(1)

    def manifold(self, x: Tensor, dual: Tensor) -> Manifold:
        w = x + dual
        p = self.prox(w, 1.0)
        tension = (w - p).cumsum(-1)[..., :-1].abs()  # of the string, at most the weight
        return segments(p, shared(self.weight, x) - tension)

    def _rows(self, x: Tensor, step: Scalar) -> tuple[Tensor, Tensor]:
        """x as (R, n) and step weight as (1 or R, 1 or n - 1)."""
        if not x.is_floating_point():
            raise TypeError(
                f"the prox of TotalVariation1D needs a real floating-point x, got {x.dtype}. "
                "Convert it, x.float() or its real part."
            )
        *lead, n = x.shape
        flat = x if x.ndim == 2 else x.reshape(math.prod(lead), n)
        t = expand(step, x) * self.weight
        if not isinstance(t, Tensor):
            t = torch.full((1, 1), t, dtype=torch.float64)
        elif t.numel() == 1:
            t = t.reshape(1, 1)
        elif t.shape[-1] not in (1, n - 1):
            raise ValueError(
                f"the weight of TotalVariation1D has {t.shape[-1]} entries in its last dim, at "
                f"signals of {n} samples: give one for each of the {n - 1} edges, or one for all, "
                "(B, 1)."
            )
        elif t.shape[:-1].numel() == 1:
            t = t.reshape(1, -1)
        else:
            t = t.expand(*lead, t.shape[-1]).reshape(len(flat), t.shape[-1])
        return flat, t
