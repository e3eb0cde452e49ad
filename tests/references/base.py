"""What a reference is, and the central difference that checks it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Theta = dict[str, np.ndarray]  # the parameters by name, float64; a scalar has shape ()

PROVEN = 1e-11  # a relative residual of rounding size times a condition number of 1e4


class NotSolved(RuntimeError):
    """No active set passed the optimality conditions."""


@dataclass(frozen=True, eq=False)
class Answer:
    """The solution at one theta, its proof and its derivative.

    The margin is the relative distance to the nearest kink: the smallest of the inactive primal
    quantities and of the slacks of the active duals, each over its natural scale. Where the dual
    is not unique (TV in 2-D) the slack is that of a central dual: a lower bound.
    """

    x: np.ndarray
    residual: float  # of the optimality conditions, relative; computed without the active set
    margin: float  # inf where the problem is smooth
    active: np.ndarray  # labels of the manifold; equal labels, same smooth piece
    vjp: Callable[[np.ndarray], Theta]  # g -> (dx/dtheta)^T g, by name
    dual: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Reference:
    """One class of problems: how to draw one, solve it, and evaluate its energy."""

    name: str
    draw: Callable[..., Theta]  # (rng, **size) -> theta
    attempt: Callable[[Theta], Answer]  # may fail: by a large residual
    objective: Callable[[Theta, np.ndarray], float]  # inf outside the constraints

    def solve(self, theta: Theta) -> Answer:
        answer = self.attempt(theta)
        if not answer.residual <= PROVEN:
            raise NotSolved(
                f"{self.name}: the optimality conditions hold only to {answer.residual:.1e}, not "
                f"to {PROVEN:.0e}: a degenerate or too ill-conditioned problem. Draw another."
            )
        return answer

    def instance(
        self, seed: int = 0, margin: float = 1e-3, draws: int = 200, **size
    ) -> tuple[Theta, Answer]:
        """The first of up to `draws` random problems that is at least `margin` from a kink."""
        best = -np.inf
        for draw in range(draws):
            theta = self.draw(np.random.default_rng([seed, draw]), **size)
            answer = self.attempt(theta)
            proven = answer.residual <= PROVEN
            if proven and answer.margin >= margin:
                return theta, answer
            best = max(best, answer.margin) if proven else best
        raise NotSolved(
            f"{self.name}: none of {draws} draws is {margin:.1e} from a kink, the best is "
            f"{best:.1e}. Ask for a smaller margin or a smaller size."
        )


def central_difference(
    solve: Callable[[Theta], Answer], theta: Theta, direction: Theta, h: float
) -> np.ndarray:
    """dx/dtheta along the direction by four solves: (4 C(h / 2) - C(h)) / 3, of error O(h^4),

    with C(h) = (x(theta + h d) - x(theta - h d)) / 2h. Refused if a kink lies within h.
    """

    def moved(step: float) -> Answer:
        return solve({**theta, **{k: theta[k] + step * d for k, d in direction.items()}})

    far, near = ([moved(s), moved(-s)] for s in (h, h / 2))
    if not all(np.array_equal(a.active, far[0].active) for a in (far[1], *near)):
        raise NotSolved(f"the active set changes within h = {h:.1e}: take a smaller h")
    return (8 * (near[0].x - near[1].x) - (far[0].x - far[1].x)) / (6 * h)


def sum_to(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The adjoint of broadcasting from `shape`."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and gradient.shape[i] != 1)
    return gradient.sum(axis=axes, keepdims=True)


def uniform(rng: np.random.Generator, low: float, high: float, shape: tuple[int, ...]):
    return np.asarray(rng.uniform(low, high, shape))


def smallest(*slacks: np.ndarray) -> float:
    """The minimum over several arrays, some of them empty."""
    return float(min((s.min() for s in slacks if s.size), default=np.inf))


def relative(residual: np.ndarray, scale: np.ndarray) -> float:
    """The largest entry of the residual over the largest entry of what it is a difference of."""
    return float(np.abs(residual).max(initial=0) / max(np.abs(scale).max(initial=0), 1e-300))


def fista(
    A: np.ndarray,
    b: np.ndarray,
    prox: Callable[[np.ndarray, float], np.ndarray],
    finish: Callable[[np.ndarray], Answer | None],
    curvature: float = 0.0,
    max_iter: int = 200_000,
) -> Answer:
    """Accelerated proximal gradient until `finish`, given a point, can prove its active set.

    min 1/2 |Ax - b|^2 + curvature/2 |x|^2 + g(x), momentum restarted when it points uphill.
    """
    step = float(1 / (np.linalg.norm(A, 2) ** 2 + curvature))
    x = v = np.zeros(A.shape[1])
    t = 1.0
    for iteration in range(1, max_iter + 1):
        previous, x = x, prox(v - step * (A.T @ (A @ v - b) + curvature * v), step)
        if (v - x) @ (x - previous) > 0:
            t = 1.0
        t, old = (1 + np.sqrt(1 + 4 * t * t)) / 2, t
        v = x + (old - 1) / t * (x - previous)
        if iteration % 100 == 0 and (answer := finish(x)) is not None:
            return answer
    raise NotSolved(
        f"{max_iter} accelerated steps identified no optimal active set: the problem is degenerate "
        "or its solution not unique. Draw another."
    )
