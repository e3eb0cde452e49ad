"""The outer problem: the least of a criterion over the logarithms of weights."""

from __future__ import annotations

from collections.abc import Callable
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

    def scan(self, start: np.ndarray, step: np.ndarray, most: int, rises: int) -> None:
        """Look at `start`, and on by `step`, until the criterion has risen `rises` times: it may
        have several valleys."""
        losses: list[float] = []
        while len(losses) < most:
            losses.append(self._look(start + len(losses) * step))
            if len(losses) > 3 and min(losses[-rises:]) > min(losses):
                break

    def refine(self, step: np.ndarray) -> None:
        """Look on both sides of the best point."""
        best = self.best
        self._look(best - step)
        self._look(best + step)

    def _look(self, point: np.ndarray) -> float:
        """Roughly, without a gradient."""
        with torch.no_grad(), accuracy(_ROUGH):
            return self._note(point, float(self.criterion(torch.from_numpy(point))))

    def spread(self, n: int) -> None:
        """From one weight for all to n weights."""
        self.points = [np.full(n, point[0]) for point in self.points]

    def descend(self, reach: float, max_iter: int, tol: float) -> None:
        """L-BFGS-B from the best point so far, no further than `reach` from it [1].

        [1] Byrd, Lu, Nocedal, Zhu. A limited memory algorithm for bound constrained optimization.
            SISC, 1995.
        """
        start, size = self.best, max(abs(min(self.losses)), np.finfo(float).tiny)
        scale = self._bend() or size

        def evaluate(point: np.ndarray) -> tuple[float, np.ndarray]:
            weights = torch.from_numpy(point.copy()).requires_grad_()
            loss = self.criterion(weights)
            (gradient,) = torch.autograd.grad(loss, weights)
            self._note(point, loss.item())
            return loss.item() / scale, gradient.numpy() / scale

        minimize(
            evaluate, start, jac=True, method="L-BFGS-B",
            bounds=[(value - reach, value + reach) for value in start],
            # relative to the loss; along one weight a kink has no slope worth a long search
            options={"maxiter": max_iter, "ftol": tol * min(size / scale, 1.0), "gtol": tol,
                     "maxls": 3 if len(start) == 1 else 20},
        )  # fmt: skip

    def _bend(self) -> float:
        """The second derivative at the best point by its two neighbours, with which the first step
        of the descent is Newton's; 0 for several weights, and at an end of what was looked at."""
        points, index = np.unique(np.stack(self.points)[:, 0], return_index=True)
        losses = np.array(self.losses)[index]
        k = int(np.argmin(losses))
        near = slice(k - 1, k + 2)
        inside = 0 < k < len(losses) - 1 and bool(np.isfinite(losses[near]).all())
        if len(self.best) > 1 or not inside:
            return 0.0
        slopes = np.diff(losses[near]) / np.diff(points[near])
        return 2 * float(slopes[1] - slopes[0]) / (points[k + 1] - points[k - 1])

    def _note(self, point: np.ndarray, loss: float) -> float:
        self.points.append(np.array(point))
        self.losses.append(loss if np.isfinite(loss) else np.inf)
        return self.losses[-1]
