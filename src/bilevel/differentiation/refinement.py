"""Most terms of a Neumann series in low precision."""

from __future__ import annotations

import torch
from torch import Tensor

from .._bfloat16 import ROUGH, rough_products
from .linear_solvers import Product


class RoughInverse:
    """M^-1 b to two digits, or to the goal (B,), by the series of step = I - M with rough products;
    b, its first term, where these gain nothing. A refinement does the rest: x + M^-1 (b - M x)."""

    def __init__(self, step: Product, like: Tensor, terms: int) -> None:
        self.step, self.terms = step, terms
        self._rough = rough_products(like)

    def __call__(self, b: Tensor, goal: Tensor) -> Tensor:
        if self._rough is None:
            return b
        term = total = b
        size = torch.linalg.vector_norm(b, dim=1)
        least = torch.maximum(ROUGH * size, goal / 2)
        for _ in range(self.terms):
            with self._rough:
                term = self.step(term)
            total = total + term
            before, size = size, torch.linalg.vector_norm(term, dim=1)
            going = (size > least) & (size * (size / before) ** self.terms <= least)
            if not self._rough.rounded or not bool(going.any()):
                break
        self._rough = self._rough if self._rough.rounded else None
        return total
