"""The outer problem: the least of a criterion over the logarithms of weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from ..accuracy import accuracy

_ROUGH = 1e-3  # the accuracy that a scan needs

Criterion = Callable[[Tensor], Tensor]  # logarithms of weights (k,) -> a number


@dataclass
class Search:
    """Every point that the criterion was looked at, and the best."""

    criterion: Criterion
    points: list[np.ndarray] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def best(self) -> np.ndarray:
        return self.points[int(np.argmin(self.losses))]

    def scan(self, candidates: Sequence[np.ndarray], rises: int = 2) -> None:
        """Look at some points until the criterion has risen `rises` times: it may have several
        valleys."""
        for candidate in candidates:
            if len(self.losses) > 3 and min(self.losses[-rises:]) > min(self.losses):
                break
            self.look(candidate)

    def refine(self, ratio: float) -> None:
        """Look on both sides of the best point, at half the distance of points `ratio` apart."""
        middle, half = self.best, np.log(ratio) / 2
        self.look(middle + half)
        self.look(middle - half)

    def look(self, point: np.ndarray) -> None:
        """Roughly, without a gradient."""
        with torch.no_grad(), accuracy(_ROUGH):
            self._note(point, float(self.criterion(torch.from_numpy(point))))

    def spread(self, n: int) -> None:
        """From one weight for all to n weights."""
        self.points = [np.full(n, point[0]) for point in self.points]

    def descend(self, reach: float, max_iter: int, tol: float) -> None:
        """L-BFGS-B from the best point so far, no further than `reach` from it [1].

        [1] Byrd, Lu, Nocedal, Zhu. A limited memory algorithm for bound constrained optimization.
            SISC, 1995.
        """
        start, scale = self.best, max(abs(min(self.losses)), np.finfo(float).tiny)

        def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
            weights = torch.from_numpy(point.copy()).requires_grad_()
            loss = self.criterion(weights)
            (gradient,) = torch.autograd.grad(loss, weights)
            self._note(point, loss.item())
            return loss.item() / scale, gradient.numpy() / scale

        minimize(
            evaluate, start, jac=True, method="L-BFGS-B",
            bounds=[(value - reach, value + reach) for value in start],
            options={"maxiter": max_iter, "ftol": tol, "gtol": tol},
        )  # fmt: skip

    def _note(self, point: np.ndarray, loss: float) -> None:
        self.points.append(np.array(point))
        self.losses.append(loss if np.isfinite(loss) else np.inf)
