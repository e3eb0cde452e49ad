"""Variational networks: a gradient flow whose energy is learned for every step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..operators import Convolution
from ..problem import Problem
from ..terms import LeastSquares, Smooth
from .flow import GradientFlow


class VariationalNetwork(nn.Module):
    """x(T) of dx/dt = -grad E_t(x), x(0) = noisy, in semi-implicit steps, as in GradientFlow, with

    E_t(x) = data_t / 2 |x - noisy|^2 + sum_i sum_p phi_ti((K_ti x)_p).

    Learned are the filters K_ti (without a mean), their activations phi'_ti = sum_j w_tij
    exp(-(. - m_j)^2 / 2 s^2), 0 < m_j - m_{j-1} = s, the weight of the data, each step's own, and
    the stopping time T; with `shared`, one energy for all steps. It starts with random filters and
    activations that are linear near 0. Images (B, 1, H, W) with values in [0, 1] -> the same.
    Memory grows with the steps.

    [1] Chen, Pock. Trainable nonlinear reaction diffusion. TPAMI, 2017 (activations of each step).
    [2] Effland, Kobler, Kunisch, Pock. Variational networks: an optimal control approach to early
        stopping variational methods for image restoration. JMIV, 2020 (the stopping time).
    """

    knots: Tensor  # m, (J,)

    def __init__(
        self,
        steps: int = 8,
        filters: int = 8,
        *,
        size: int = 5,  # of a filter: size x size, odd
        knots: int = 9,  # J, over [-0.5, 0.5]
        shared: bool = False,
        stop: float = 0.5,  # T to begin with
    ) -> None:
        super().__init__()
        if filters < 1 or size < 3 or size % 2 == 0 or knots < 3:
            raise ValueError(
                "VariationalNetwork needs a filter or more, of an odd size from 3 on, and 3 knots "
                f"or more, got {filters=}, {size=}, {knots=}."
            )
        self.flow = GradientFlow(stop, steps, implicit=True)
        energies = 1 if shared else steps
        self.register_buffer("knots", torch.linspace(-0.5, 0.5, knots), persistent=False)
        self.kernel = nn.Parameter(torch.randn(filters, 1, size, size).repeat(energies, 1, 1, 1, 1))
        self.kernel.data /= size**2
        self.activation = nn.Parameter(0.1 * self.knots.repeat(energies, filters, 1))  # w
        self.log_data = nn.Parameter(torch.full((energies,), -1.0))

    def energy(self, noisy: Tensor, step: int) -> Problem:
        t = min(step, len(self.kernel) - 1)
        kernel = self.kernel[t] - self.kernel[t].mean((2, 3), keepdim=True)
        prior = Activated(self.activation[t], self.knots)
        images = Convolution(kernel, padding=kernel.shape[-1] // 2)
        return self.log_data[t].exp() * LeastSquares(noisy) + prior @ images

    def forward(self, noisy: Tensor) -> Tensor:
        if noisy.ndim != 4 or noisy.shape[1] != 1:
            raise ValueError(
                f"VariationalNetwork needs images (B, 1, H, W), got {tuple(noisy.shape)}. Pass the "
                "channels of a colour image as a batch."
            )
        return self.flow(lambda path: self.energy(noisy, len(path) - 1), noisy)


@dataclass(frozen=True, eq=False)
class Activated(Smooth):
    """sum over the channels i and the pixels of phi_i(x), phi_i(0) = 0, phi_i' = sum_j w_ij
    exp(-(. - m_j)^2 / 2 s^2), s the distance of the m_j: not convex as a rule."""

    heights: Tensor  # w, (C, J)
    knots: Tensor  # m, (J,)

    def value(self, x: Tensor) -> Tensor:  # (B, C, H, W) -> (B,)
        areas = torch.erf(self._scaled(x) / 2**0.5) + torch.erf(self.knots / self._width / 2**0.5)
        return (
            self._width * (torch.pi / 2) ** 0.5 * torch.einsum("bchwj,cj->b", areas, self.heights)
        )

    def grad(self, x: Tensor) -> Tensor:
        bumps = (-self._scaled(x).square() / 2).exp()
        return torch.einsum("bchwj,cj->bchw", bumps, self.heights)

    @property
    def _width(self) -> Tensor:  # s
        return self.knots[1] - self.knots[0]

    def _scaled(self, x: Tensor) -> Tensor:  # -> (*x.shape, J)
        return (x[..., None] - self.knots) / self._width
