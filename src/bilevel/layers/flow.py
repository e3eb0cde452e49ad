"""The gradient flow of an energy up to a time that is learned: when to stop."""

from __future__ import annotations

from torch import Tensor, nn

from .._autocast import full_precision
from ..checks import as_problem
from ..problem import Problem
from ..terms import Proximable, Smooth
from .logarithm import logarithm
from .unrolled import Energy, begun


class GradientFlow(nn.Module):
    """flow(energy, x0) = x(T) of dx/dt = -grad E(x), x(0) = x0, in `steps` steps of h = T / steps,
    with a learnable stopping time T = exp(log_stop).

    explicit:       x' = x - h grad E(x), stable for h < 2 / L
    semi-implicit:  x' = prox_{h g}(x - h grad f(x)), g the one term with a prox (LeastSquares, L1),
                    f the others; stable for h < 2 / L of f alone

    T and whatever the energy was built from are differentiated through the steps, by the discrete
    adjoint: the gradient is that of what is computed, where the formula of the continuous flow,
    dJ/dT = -<grad J, grad E> at x(T), is off by O(h). Memory grows with the steps. energy may be a
    function of the path so far, [x(0), x(h), ...], that gives the energy of the step from its end:
    one that changes with time, as in VariationalNetwork.

    [1] Effland, Kobler, Kunisch, Pock. Variational networks: an optimal control approach to early
        stopping variational methods for image restoration. JMIV, 2020.
    """

    def __init__(self, stop: float = 1.0, steps: int = 10, *, implicit: bool = False) -> None:
        super().__init__()
        if not isinstance(steps, int) or steps < 1:
            raise ValueError(f"GradientFlow needs steps >= 1, got {steps!r}.")
        self.steps, self.implicit = steps, implicit
        self.log_stop = nn.Parameter(logarithm(self, "stopping time", stop))

    @property
    def stop(self) -> Tensor:
        return self.log_stop.exp()

    def forward(self, energy: Energy, x0: Tensor | None = None) -> Tensor:
        return self.trajectory(energy, x0)[-1]

    def trajectory(self, energy: Energy, x0: Tensor | None = None) -> list[Tensor]:
        """x at the times 0, h, ..., T."""
        with full_precision():
            problem, path = begun(energy, x0)
            h = (self.stop / self.steps).to(path[0])
            for k in range(self.steps):
                if k and callable(energy):
                    problem = as_problem(energy(path))
                slopes, g = self._split(problem)
                x = path[-1]
                for f in slopes:
                    x = x - h * f.grad(path[-1])
                path.append(x if g is None else g.prox(x, h))
            return path

    def _split(self, problem: Problem) -> tuple[list[Smooth], Proximable | None]:
        """(the terms taken by their gradient, the one taken by its prox)."""
        proximal = [t for t in problem.terms if isinstance(t, Proximable)] if self.implicit else []
        slopes = [t for t in problem.terms if isinstance(t, Smooth) and t not in proximal]
        if self.implicit and len(proximal) != 1:
            raise TypeError(
                f"GradientFlow(implicit=True) takes one term by its prox, got {len(proximal)}. "
                "Add the others as Potential(function), or leave implicit out."
            )
        if len(slopes) + len(proximal) < len(problem.terms):
            (left, *_) = (t for t in problem.terms if t not in slopes and t not in proximal)
            raise TypeError(
                f"GradientFlow follows gradients, and {type(left).__name__} has none. Smooth it: "
                "MoreauEnvelope(term, smoothing), or behind an operator Huber(delta) @ operator; "
                "or, if it has a prox, take it so: implicit=True."
            )
        return slopes, proximal[0] if proximal else None
