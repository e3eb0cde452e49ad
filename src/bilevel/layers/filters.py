"""Denoising by a learned filter bank, as a module that owns the filters."""

from __future__ import annotations

import copy
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..argmin import argmin
from ..differentiation import Implicit
from ..differentiation.base import Strategy
from ..errors import OnFail
from ..operators import Convolution
from ..problem import Problem
from ..solvers import Solver, SplitPenalties
from ..terms import L2Ball, LeastSquares
from .potentials import AbsolutePotential, FilterPotential, FirmPotential, HuberPotential


def dct_filters(size: int) -> Tensor:
    """The two-dimensional DCT-II basis but for the constant: (size^2 - 1, 1, size, size),
    orthonormal, zero-mean."""
    n = torch.arange(size, dtype=torch.float64)
    cosines = torch.cos(torch.pi * (n + 0.5) * n[:, None] / size) * (2 / size) ** 0.5
    cosines[0] *= 0.5**0.5
    basis = torch.einsum("ai,bj->abij", cosines, cosines).reshape(-1, 1, size, size)
    return basis[1:].to(torch.get_default_dtype())


class FilterDenoise(nn.Module):
    """argmin over x of 1/2 |x - noisy|^2 + weight sum_k share_k sum_p rho_k((K_k x)_p)

    with learnable filters K_k = sum_l mix_kl B_l in the DCT basis B without the constant, shares
    and weight, and rho_k by the `potential`, Huber's with learnable delta_k unless another is
    given. With a noise level `sigma`, in place of the misfit, the constraint

        |x - noisy|_2 <= sigma sqrt(pixels)

    to which the weight means nothing. For images (B, 1, H, W) -> the same, with values in [0, 1].
    They are continued by their mirror image, so that pixels at the border see as many filters as
    others.

    [1] Chen, Ranftl, Pock. Insights into analysis operator learning: from patch-based sparse models
    to higher order MRFs. TIP, 2014.
    """

    asks: ClassVar[tuple[str, ...]] = ()
    basis: Tensor  # (size^2 - 1, 1, size, size)

    def __init__(
        self,
        weight: float = 0.004,  # near the best of the DCT at a noise level of 25/255
        *,
        size: int = 7,  # of a filter: size x size, size^2 - 1 of them
        potential: FilterPotential | None = None,  # default HuberPotential(size^2 - 1)
        sigma: float | None = None,
        solver: Solver | None = None,
        diff: Strategy | None = None,
        tol: float | None = None,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        level = 1.0 if sigma is None else sigma
        if not all(0 < number < math.inf for number in (weight, level)) or size < 2:
            raise ValueError(
                "FilterDenoise needs a weight and a sigma > 0 and filters of 2 x 2 pixels or more, "
                f"got weight={weight:g}, sigma={sigma}, size={size}."
            )
        basis = dct_filters(size)
        self.register_buffer("basis", basis, persistent=False)
        self.log_weight = nn.Parameter(torch.tensor(math.log(weight)))
        self.mix = nn.Parameter(torch.eye(len(basis)))
        self.log_share = nn.Parameter(torch.zeros(len(basis)))
        self.potential = HuberPotential(len(basis)) if potential is None else potential
        if sigma is not None and not self.potential.convex:
            raise ValueError(
                "FilterDenoise with a sigma needs a convex potential: a constraint makes up for no "
                "concavity. Leave sigma out, or use SplinePotential."
            )
        self.sigma = sigma
        self.solver, self.diff, self.tol = solver, diff, tol
        self.on_fail: OnFail = on_fail

    @property
    def weight(self) -> Tensor:
        return self.log_weight.exp()

    @property
    def filters(self) -> Tensor:  # (K, 1, size, size)
        return torch.tensordot(self.mix, self.basis, 1)

    @torch.no_grad()
    def strongest_first(self) -> Tensor:  # (K, 1, size, size)
        """The filters, by share times length."""
        strength = self.log_share.exp() * self.filters.flatten(1).norm(dim=1)
        return self.filters[strength.argsort(descending=True)]

    def with_weight(self, weight: float) -> FilterDenoise:
        """The same filters with another weight."""
        other = copy.deepcopy(self)
        other.log_weight.data.fill_(math.log(weight))
        return other

    def energy(self, noisy: Tensor) -> Problem:
        weights, filters = (self.weight * self.log_share.exp())[:, None, None], self.filters
        penalty = self.potential.term(weights, filters) @ Convolution(filters)
        if self.sigma is None:
            return LeastSquares(noisy) + penalty
        return L2Ball(self.sigma * noisy[0].numel() ** 0.5, noisy) + penalty

    def default_solver(self) -> Solver | None:
        """Primal-dual steps for sharp bends."""
        sharp = isinstance(self.potential, HuberPotential | FirmPotential)
        return SplitPenalties() if sharp and self.sigma is None else None

    def default_diff(self) -> Strategy | None:
        """Of a smooth energy, of many responses a pixel, nothing is kept for the backward
        pass."""
        smooth = self.sigma is None and not isinstance(self.potential, AbsolutePotential)
        return Implicit(recompute=True) if smooth else None

    def forward(self, noisy: Tensor) -> Tensor:
        border = self.basis.shape[-1] - 1
        if noisy.ndim != 4 or noisy.shape[1] != 1 or min(noisy.shape[2:]) <= border:
            raise ValueError(
                f"FilterDenoise needs images (B, 1, H, W) with sides above {border}, got "
                f"{tuple(noisy.shape)}. Pass the channels of a colour image as a batch."
            )
        wide = pad(noisy, [border] * 4, mode="reflect")
        x = argmin(
            self.energy(wide),
            x0=wide.detach(),
            solver=self.default_solver() if self.solver is None else self.solver,
            diff=self.default_diff() if self.diff is None else self.diff,
            tol=self.tol,
            on_fail=self.on_fail,
        )
        return x[..., border:-border, border:-border]
