"""What the responses of a filter bank cost, with learnable numbers of its own."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from ..terms import L1, Huber, Spline
from ..terms.base import Term
from .logarithm import logarithm

_SAMPLES = 16  # of the spectrum, a tap of the filters
_MARGIN = 0.95  # of the concavity that 1/2 |x - y|^2 makes up for


class FilterPotential(nn.Module, ABC):
    """sum_k weight_k sum_p rho_k(r_kp) of responses r (B, K, H, W)."""

    convex = True  # every rho_k

    @abstractmethod
    def term(self, weight: Tensor, filters: Tensor) -> Term:
        """For weights (K, 1, 1) and the filters (K, 1, size, size) that respond."""


class AbsolutePotential(FilterPotential):
    """rho(t) = |t|."""

    def term(self, weight: Tensor, filters: Tensor) -> Term:
        return L1(weight=weight)


class HuberPotential(FilterPotential):
    """rho_k(t) = t^2 / (2 delta_k) up to delta_k, |t| - delta_k / 2 beyond; delta_k are learned."""

    def __init__(self, count: int, delta: float = 0.02) -> None:
        super().__init__()
        _positive(count=count)
        self.log_delta = nn.Parameter(logarithm(self, "delta", delta).repeat(count))

    def term(self, weight: Tensor, filters: Tensor) -> Term:
        return Huber(self.log_delta.exp()[:, None, None], weight=weight)


class SplinePotential(FilterPotential):
    """rho_k' piecewise linear, with knots at 0, spacing, 2 spacing, ..., and rising: its slopes,
    softplus(raw) / spacing, are learned. It begins near Huber's with delta = spacing.

    [1] Goujon, Neumayer, Bohra, Ducotterd, Unser. A neural-network-based convex regularizer for
        inverse problems. IEEE TCI, 2023.
    """

    def __init__(self, count: int, pieces: int = 8, spacing: float = 0.01) -> None:
        super().__init__()
        _positive(count=count, pieces=pieces, spacing=spacing)
        self.spacing = spacing
        first = torch.exp(-2.0 * torch.arange(pieces))
        self.raw = nn.Parameter(first.expm1().log().repeat(count, 1))

    def term(self, weight: Tensor, filters: Tensor) -> Term:
        slopes = softplus(self.raw)[:, None, None] / self.spacing
        return Spline(slopes, torch.full_like(slopes, self.spacing), weight=weight)


class FirmPotential(FilterPotential):
    """rho_k' rises to 1 at delta_k, as Huber's, and falls with slope -bend_k to 0, where rho_k is
    flat: a response that is large for sure costs no more (the minimax concave penalty, rounded).

    No rho_k is convex, 1/2 |x - y|^2 + sum_k weight_k sum_p rho_k is, strongly: bend_k = c
    share_k with sum_k weight_k bend_k |K_k x|^2 <= 0.95 |x|^2, from the spectra of the K_k. The
    delta_k and shares are learned.

    [1] Goujon, Neumayer, Unser. Learning weakly convex regularizers for convergent
        image-reconstruction algorithms. SIIMS, 2024.
    [2] Zhang. Nearly unbiased variable selection under minimax concave penalty. AoS, 2010.
    """

    convex = False

    def __init__(self, count: int, delta: float = 0.02) -> None:
        super().__init__()
        _positive(count=count)
        self.log_delta = nn.Parameter(logarithm(self, "delta", delta).repeat(count))
        self.log_bend = nn.Parameter(torch.zeros(count))

    def term(self, weight: Tensor, filters: Tensor) -> Term:
        delta, share = self.log_delta.exp()[:, None, None], self.log_bend.exp()[:, None, None]
        bend = _MARGIN * share / gain(weight * share, filters)
        return Spline(
            torch.stack([1 / delta, -bend], -1), torch.stack([delta, 1 / bend], -1), weight=weight
        )


def gain(weight: Tensor, filters: Tensor) -> Tensor:  # a number
    """A bound of sum_k weight_k |K_k x|^2 / |x|^2, 1 or 2 % above, differentiable: the largest of
    the summed squared spectra, between samples at most by 1 / cos(pi / 16)^2 above one of them
    (Ehlich, Zeller 1964)."""
    sides = [_SAMPLES * (n - 1) for n in filters.shape[2:]]
    spectra = torch.fft.rfft2(filters[:, 0], s=sides).abs().square()
    between = math.cos(math.pi / _SAMPLES) ** 2
    return (weight * spectra).sum(0).max() / between


def _positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 < number < math.inf:
            raise ValueError(f"a potential's {name} must be positive and finite, got {number}.")
