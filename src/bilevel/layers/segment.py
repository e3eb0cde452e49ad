"""Segmentation into the regions that scribbles name, as a module with learned unaries and edges."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from ..argmin import argmin
from ..differentiation import Unroll
from ..operators import Gradient
from ..solvers import BregmanPrimalDual
from ..terms import L1, Entropy, Linear, Simplex
from .logarithm import logarithm

POINTS = 48  # of a scribble that are compared with every pixel
GAP = 1e-3  # relative, at which it ends before its last step
ABSENT = 50.0  # the cost of a label that a sample has no scribble of


class Segmenter(nn.Module):
    """argmin over u, a point of the simplex of labels in each pixel, of

        <costs, u> + sum u log u + sum_edges weight |differences of u|,

    costs_l(p) = -log of the mean over the scribble's points s of
    exp(-color |c_p - c_s|^2 - space |p - s|^2), times trust; weight = edge exp(-contrast |c_p -
    c_q|). All five numbers are learned, as logarithms. Without edges u would be the softmax of the
    costs; the steps that bring the edges in are smooth, too (BregmanPrimalDual). There are `steps`
    of them: the labels stand long before the energy does, and what is differentiated is the last.

    [1] Nieuwenhuis, Cremers. Spatially varying color distributions for interactive multilabel
        segmentation. TPAMI, 2013.
    """

    asks: ClassVar = ("scribbles",)

    def __init__(
        self,
        color: float = 50.0,  # colours as Lab / 100
        space: float = 30.0,  # places in units of the longer side
        trust: float = 0.5,
        edge: float = 2.0,
        contrast: float = 10.0,
        *,
        steps: int = 40,
    ) -> None:
        super().__init__()
        start = {"color": color, "space": space, "trust": trust, "edge": edge, "contrast": contrast}
        for name, value in start.items():
            self.register_parameter(f"log_{name}", nn.Parameter(logarithm(self, name, value)))
        self.steps = steps

    def value(self, name: str) -> Tensor:
        return getattr(self, f"log_{name}").exp()

    def forward(self, image: Tensor, scribbles: Tensor) -> Tensor:
        """(B, C, H, W), and whole numbers (B, H, W), 0 where nothing is drawn -> (B, L, H, W)."""
        if image.ndim != 4 or scribbles.shape != image[:, 0].shape or not scribbles.any():
            raise ValueError(
                "Segmenter needs images (B, C, H, W) and scribbles (B, H, W) with labels from 1 "
                f"on, got {tuple(image.shape)} and {tuple(scribbles.shape)}."
            )
        costs = self.costs(image, scribbles)
        slopes = torch.linalg.vector_norm(Gradient(2)(image), dim=1, keepdim=True)
        weight = self.value("edge") * (-self.value("contrast") * slopes).exp()
        energy = Linear(costs) + Simplex(dim=1) + Entropy() + weight * (L1() @ Gradient(2))
        return argmin(
            energy,
            x0=self.start(costs),
            solver=BregmanPrimalDual(step_size=0.1, dual_step_size=1.0),
            diff=Unroll(segment=10),
            tol=GAP,
            max_iter=self.steps,
            on_fail="ignore",
        )

    def start(self, costs: Tensor) -> Tensor:
        """The solution without edges, a constant to the derivative."""
        return (-costs.detach()).softmax(1)

    def costs(self, image: Tensor, scribbles: Tensor) -> Tensor:  # -> (B, L, H, W)
        colors, places = image.flatten(2), _places(image)
        found = [
            self._cost(colors, places, (scribbles == label).flatten(1))
            for label in range(1, int(scribbles.max()) + 1)
        ]
        return self.value("trust") * torch.stack(found, 1).unflatten(2, image.shape[2:])

    def _cost(self, colors: Tensor, places: Tensor, drawn: Tensor) -> Tensor:  # -> (B, H W)
        index, present = _points(drawn)
        at_points = colors.gather(2, index[:, None].expand(-1, colors.shape[1], -1))
        apart = _square_distances(at_points, colors)
        away = _square_distances(places[:, index].transpose(0, 1), places.expand(len(index), 2, -1))
        kernel = -self.value("color") * apart - self.value("space") * away
        kernel = kernel.masked_fill(~present[:, :, None], -torch.inf)
        none = ~present.any(1, keepdim=True)
        mean = kernel.masked_fill(none[:, :, None], 0.0).logsumexp(1)
        count = present.sum(1, keepdim=True).clamp(min=1).to(mean).log()
        return torch.where(none, ABSENT, count - mean)


def _places(image: Tensor) -> Tensor:  # -> (2, H W), in units of the longer side
    sides = [torch.arange(n, dtype=image.dtype, device=image.device) for n in image.shape[2:]]
    return torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1) / max(image.shape[2:])


def _points(drawn: Tensor) -> tuple[Tensor, Tensor]:  # (B, N) bool -> (B, POINTS), the same bool
    """Up to POINTS of what is drawn, the same ones each time, and which of them exist."""
    rng = torch.Generator().manual_seed(0)
    order = 1 + torch.rand(drawn.shape[1], generator=rng).to(drawn.device)
    chosen = (order * drawn).topk(min(POINTS, drawn.shape[1]), dim=1)
    return chosen.indices, chosen.values > 0


def _square_distances(a: Tensor, b: Tensor) -> Tensor:  # (B, C, S), (B, C, N) -> (B, S, N)
    return (a[:, :, :, None] - b[:, :, None, :]).square().sum(1)
