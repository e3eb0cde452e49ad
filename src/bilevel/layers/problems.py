"""Classic optimization problems as modules: projections, sparse codes, quadratic programs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..argmin import argmin
from ..operators.matrix import Matrix
from ..problem import Problem
from ..solvers.active_set import InteriorPoint
from ..solvers.direct_prox import DirectProx
from ..solvers.newton import Newton
from ..terms import L1, Box, LeastSquares, Proximable, Quadratic
from .logarithm import logarithm


class Projection(nn.Module):
    """argmin over z in a set of |z - x|^2: Simplex(), L1Ball(1.0), Box(0.0, 1.0), Affine(A, b),
    Monotone(), any term that is a set.

    (B, *event) -> the same.
    """

    def __init__(self, onto: Proximable) -> None:
        super().__init__()
        self.onto = onto

    def forward(self, x: Tensor) -> Tensor:
        return argmin(LeastSquares(x) + self.onto, solver=DirectProx())


class SparseCode(nn.Module):
    """argmin over z of 1/2 |D z - x|^2 + weight |z|_1, the dictionary D (features, atoms) and
    weight = exp(log_weight) learnable.

    (B, features) -> (B, atoms). The atoms begin at random, of length 1.
    """

    def __init__(self, features: int, atoms: int, weight: float = 0.1) -> None:
        super().__init__()
        self.dictionary = nn.Parameter(nn.functional.normalize(torch.randn(features, atoms), dim=0))
        self.log_weight = nn.Parameter(logarithm(self, "weight", weight))

    def forward(self, x: Tensor) -> Tensor:
        return argmin(LeastSquares(x) @ Matrix(self.dictionary) + self.log_weight.exp() * L1())


class LeastSquaresFit(nn.Module):
    """argmin over w of 1/2 |A w - b|^2 + weight/2 |w|^2, ridge regression inside a network, with
    weight = exp(log_weight) learnable.

    A (B, m, n) or (m, n), b (B, m) -> (B, n).
    """

    def __init__(self, weight: float = 1e-3) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(logarithm(self, "weight", weight))

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        energy = LeastSquares(b) @ Matrix(A) + self.log_weight.exp() * LeastSquares()
        return argmin(energy, solver=Newton())


class QuadraticProgram(nn.Module):
    """argmin over x of 1/2 <x, Q x> + <q, x> with A x = b and G x <= h; each pair may be left out.

    q (B, n), Q (n, n) or (B, n, n), A and G (p, n) or (B, p, n), b and h (p,) or (B, p) -> (B, n).
    """

    def forward(
        self,
        Q: Tensor,
        q: Tensor,
        A: Tensor | None = None,
        b: Tensor | None = None,
        G: Tensor | None = None,
        h: Tensor | None = None,
    ) -> Tensor:
        for pair, *both in (("A and b", A, b), ("G and h", G, h)):
            if sum(part is None for part in both) == 1:
                raise ValueError(f"QuadraticProgram needs {pair}, or neither, got one of them.")
        energy = Problem((Quadratic(Q, q),))
        if A is not None and b is not None:
            energy = energy + Box(b, b) @ Matrix(A)
        if G is not None and h is not None:
            energy = energy + Box(torch.full_like(h, -torch.inf), h) @ Matrix(G)
        solver = InteriorPoint() if len(energy.terms) > 1 else Newton()
        return argmin(energy, x0=torch.zeros_like(q), solver=solver)
