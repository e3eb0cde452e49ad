"""GradientSampling: descent on a loss with kinks, for few parameters."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from bilevel.argmin import solve
from bilevel.learning.descent import Closure, Descent
from bilevel.operators import Matrix
from bilevel.terms import LeastSquares, Simplex

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
        samples: int | None = None,  # default: one more than there are parameters
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
        return self.options["samples"] or len(self.theta) + 1

    def _slope(self, closure: Closure, theta: Tensor, radius: float) -> Tensor:
        """The gradient at a random point of the ball."""
        direction = torch.randn(len(theta), dtype=torch.float64)
        direction *= torch.rand((), dtype=torch.float64) ** (1 / len(theta)) / direction.norm()
        self.place(theta + radius * direction.to(theta))
        return self.evaluate(closure)[1]

    def _search(
        self, closure: Closure, theta: Tensor, loss: float, g: Tensor, radius: float
    ) -> bool:
        """Go along -g by twice the last length, or halves of it down to an eighth of the radius;
        whether one brought enough."""
        size = float(g.norm())
        length = max(2 * self.memory.get("length", 0.0), radius)
        while length >= radius / 8:
            self.place(theta - length / size * g)
            if self.evaluate(closure)[0] <= loss - _ARMIJO * length * size:
                self.memory["length"] = length
                return True
            length /= 2
        return False


def _shortest(gradients: Tensor) -> Tensor:  # (m, n) -> (n,)
    """The shortest vector of the convex hull, 0 if it is that small against the gradients."""
    G = gradients.double()
    scale = G.norm(dim=1).max()
    start = G.new_full((1, len(G)), 1 / len(G))
    energy = LeastSquares() @ Matrix((G / scale).T) + Simplex()
    # whatever it ends at is in the hull, and the line search judges it
    (weights,) = solve(energy, x0=start, tol=1e-10, max_iter=5000, on_fail="ignore").x
    g = weights @ G
    return (g if g.norm() > _CANCELLED * scale else torch.zeros_like(g)).to(gradients)
