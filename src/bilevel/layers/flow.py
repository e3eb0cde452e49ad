"""The gradient flow of an energy up to a time that is learned: when to stop."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .._autocast import full_precision
from .._broadcast import eps
from .._tangents import constant, traced
from ..checks import as_problem
from ..errors import NotConverged, OnFail, check_on_fail, fail
from ..problem import Problem, relative_change
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

    No stable step raises the energy. Where the last one did, the steps are too long, and what they
    give is no flow: NotConverged, or what on_fail says; "warn" lets a line search over T try too
    long ones. Asked of an energy that does not change with time, for three values of it.

    [1] Effland, Kobler, Kunisch, Pock. Variational networks: an optimal control approach to early
        stopping variational methods for image restoration. JMIV, 2020.
    """

    def __init__(
        self,
        stop: float = 1.0,
        steps: int = 10,
        *,
        implicit: bool = False,
        on_fail: OnFail = "raise",
    ) -> None:
        super().__init__()
        check_on_fail(on_fail)
        self.on_fail: OnFail = on_fail
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
            if not callable(energy) and not traced() and all(f.potential for f in slopes):
                with constant():
                    self._refuse_rises(problem, path)
            return path

    def _refuse_rises(self, problem: Problem, path: list[Tensor]) -> None:
        first, before, last = (problem.value(x) for x in (path[0], path[-2], path[-1]))
        least, near = torch.minimum(first, before), eps(last) ** 0.5
        moves = ~(relative_change((path[-2],), (path[-1],)) <= near)  # and not by rounding
        rises = moves & ~(last <= least + near * least.abs()) & ~first.isnan()
        if bool(rises.any()):
            energies = (f"{float(E[rises][0]):.3g}" for E in (first, before, last))
            fail(
                NotConverged(
                    "GradientFlow's steps of h = T / steps = "
                    f"{float(self.stop) / self.steps:.3g} are too long: the energy rises in "
                    f"{int(rises.sum())} of {len(rises)} samples, in one from {next(energies)} at "
                    f"first and {next(energies)} before the last step to {next(energies)}. Steps "
                    "are stable for h < 2 / L: take more of them, a smaller stop, or implicit=True."
                ),
                self.on_fail,
            )

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
