"""How an image goes on beyond its edges."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

Margin = tuple[int, int]  # pixels before and after the image, along one dim


class Boundary(ABC):
    """An image continued by a margin along each of its last two dims, and the adjoint of that."""

    def margin(self, before: int, after: int) -> Margin:
        """What has to be added where a kernel reaches out so far."""
        return before, after

    def extend(self, x: Tensor, *margins: Margin) -> Tensor:  # (..., H, W) -> (..., H', W')
        """The image with its margins."""
        for dim, margin in zip((-2, -1), margins, strict=True):
            x = self._extend(x, dim, *margin) if any(margin) else x
        return x

    def fold(self, y: Tensor, *margins: Margin) -> Tensor:  # (..., H', W') -> (..., H, W)
        """The adjoint of `extend`."""
        for dim, margin in zip((-2, -1), margins, strict=True):
            y = self._fold(y, dim, *margin) if any(margin) else y
        return y

    @abstractmethod
    def _extend(self, x: Tensor, dim: int, before: int, after: int) -> Tensor: ...

    @abstractmethod
    def _fold(self, y: Tensor, dim: int, before: int, after: int) -> Tensor: ...


@dataclass(frozen=True)
class Zero(Boundary):
    """Black beyond the edge: 0 0 | a b c | 0 0."""

    def _extend(self, x: Tensor, dim: int, before: int, after: int) -> Tensor:
        return pad(x, along(dim, before, after))

    def _fold(self, y: Tensor, dim: int, before: int, after: int) -> Tensor:
        return y.narrow(dim, before, y.shape[dim] - before - after)


@dataclass(frozen=True)
class Symmetric(Boundary):
    """A mirror at the edge, the edge pixel repeated: b a | a b c | c b."""

    def _extend(self, x: Tensor, dim: int, before: int, after: int) -> Tensor:
        near = x.narrow(dim, 0, before).flip(dim)
        far = x.narrow(dim, x.shape[dim] - after, after).flip(dim)
        return torch.cat([near, x, far], dim)

    def _fold(self, y: Tensor, dim: int, before: int, after: int) -> Tensor:
        n = y.shape[dim] - before - after
        near, image, far = y.split([before, n, after], dim)
        return (
            image
            + pad(near.flip(dim), along(dim, 0, n - before))
            + pad(far.flip(dim), along(dim, n - after, 0))
        )


@dataclass(frozen=True)
class Periodic(Boundary):
    """The image again, as on a torus: b c | a b c | a b. Needs no margin: the FFT is periodic."""

    def margin(self, before: int, after: int) -> Margin:
        return 0, 0

    def _extend(self, x: Tensor, dim: int, before: int, after: int) -> Tensor:
        raise AssertionError("no margin, nothing to extend")

    def _fold(self, y: Tensor, dim: int, before: int, after: int) -> Tensor:
        raise AssertionError("no margin, nothing to fold")


def along(dim: int, before: int, after: int) -> tuple[int, ...]:
    """The argument of `pad` for the dim -1, -2, ...: pad counts from the last."""
    return (0, 0) * (-dim - 1) + (before, after)
