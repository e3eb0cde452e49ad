"""Points at which a function is stationary: its value feels their motion in second order only."""

from __future__ import annotations

import torch
from torch import Tensor

Z = tuple[Tensor, ...]


def stationary(z: Z) -> Z:
    """z(θ), for the arguments of an L(z, θ) with dL/dz = 0 there, and for nothing else.

    The first derivative of L(z(θ), θ) becomes ∂L/∂θ, without an adjoint: dL/dz, which is zero up to
    the accuracy of z, counts as zero. The second is L_θθ + L_θz dz/dθ, by one adjoint solve; what
    is left out of it, (dz/dθ)* (L_zθ + L_zz dz/dθ), is the derivative of dL/dz = 0.
    """
    return _Stationary.apply(*z)  # type: ignore[return-value]


class _Stationary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *z: Tensor):
        return tuple(part.view_as(part) for part in z)

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        return _Nothing.apply(*cotangents)


class _Nothing(torch.autograd.Function):
    """0 in value, with the derivative of what it stands for."""

    @staticmethod
    def forward(ctx, *cotangents: Tensor):
        return tuple(torch.zeros_like(part) for part in cotangents)

    @staticmethod
    def backward(ctx, *cotangents: Tensor):
        return cotangents
