"""GradientSampling: descent on a loss with kinks, for few parameters."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from bilevel.learning.descent import Closure, Descent

_ARMIJO = 1e-4  # the part of the predicted decrease that a step must bring
_CANCELLED = 1e-4  # a shortest vector of that relative length is 0


class GradientSampling(Descent):
    """θ <- θ - t g, g the shortest vector in the convex hull of gradients near θ [1, 2].

    At a kink of θ -> loss(x(θ)) the gradient is that of one side, and steps against it end on the
    other: a descent method walks to and fro across the kink, and its line search fails. Gradients
    sampled in a ball around θ come from all sides; g cancels what they disagree in and keeps what
    they share, the way along the kink. Where g is 0, or no step along it brings enough, the ball
    shrinks to a tenth, down to `smallest`: there the run ends, at a θ that is stationary up to that
    radius (Clarke).

    A step evaluates the loss and its gradient 1 + samples times or more, so this is for up to about
    100 parameters. Random numbers: torch's, which `learn` seeds. Solve the lower level accurately:
    the line search believes the loss.

    [1] Burke, Lewis, Overton. A robust gradient sampling algorithm for nonsmooth, nonconvex
    optimization. SIAM J. Optim., 2005.
    [2] Kiwiel. Convergence of the gradient sampling algorithm. SIAM J. Optim., 2007.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        *,
        radius: float = 0.1,  # of the first ball, in the units of the parameters
        smallest: float = 1e-6,
        samples: int | None = None,  # default: twice as many as parameters
    ) -> None:
        if not 0 < smallest <= radius < float("inf"):
            raise ValueError(
                f"GradientSampling needs 0 < smallest <= radius, got smallest = {smallest}, radius"
                f" = {radius}."
            )
        if samples is not None and samples < 1:
            raise ValueError(f"GradientSampling needs samples >= 1, got {samples}.")
        super().__init__(params, dict(radius=radius, smallest=smallest, samples=samples))

    def step(self, closure: Closure) -> float:  # type: ignore[override]
        """One step, or none: then θ is stationary up to the smallest radius."""
        theta, (loss, gradient) = self.theta, self.evaluate(closure)
        radius = self.memory.setdefault("radius", self.options["radius"])
        while radius >= self.options["smallest"] and bool(gradient.any()):
            near = [gradient, *(self._slope(closure, theta, radius) for _ in range(self._count()))]
            g = _shortest(torch.stack(near))
            if bool(g.any()) and self._search(closure, theta, loss, g, radius):
                return loss
            radius = self.memory["radius"] = 0.1 * radius
        self.place(theta)
        return loss

    def _count(self) -> int:
        return self.options["samples"] or 2 * len(self.theta)

    def _slope(self, closure: Closure, theta: Tensor, radius: float) -> Tensor:
        """The gradient at a random point of the ball."""
        direction = torch.randn(len(theta), dtype=torch.float64)
        direction *= torch.rand((), dtype=torch.float64) ** (1 / len(theta)) / direction.norm()
        self.place(theta + radius * direction.to(theta))
        return self.evaluate(closure)[1]

    def _search(
        self, closure: Closure, theta: Tensor, loss: float, g: Tensor, radius: float
    ) -> bool:
        """Go along -g by twice the last length, or halves of it down to a small part of the
        radius; whether one brought enough."""
        size = float(g.norm())
        length = max(2 * self.memory.get("length", 0.0), radius / 8)
        while length >= radius / 64:
            self.place(theta - length / size * g)
            if self.evaluate(closure)[0] <= loss - _ARMIJO * length * size:
                self.memory["length"] = length
                return True
            length /= 2
        return False


def _shortest(gradients: Tensor) -> Tensor:  # (m, n) -> (n,)
    """The shortest vector of the convex hull, 0 if it is that small against the gradients."""
    from scipy.optimize import nnls  # not with `import bilevel`

    G = gradients.double()
    G = G / (scale := G.norm(dim=1).max())
    # the minimiser of |g|^2 + (1 - sum of the weights)^2 has the shortest g, but for its scale
    system = torch.cat([G.T, torch.ones_like(G[:, :1]).T]).cpu().numpy()
    weights, _ = nnls(system, np.eye(len(system))[-1])
    g = torch.from_numpy(weights / weights.sum()).to(G) @ G
    return (scale * g if g.norm() > _CANCELLED else torch.zeros_like(g)).to(gradients)
