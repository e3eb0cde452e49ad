"""A solution, and what is said of one that its loop did not reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from .acceleration import Acceleration
from .degrees_of_freedom import degrees_of_freedom
from .differentiation.certificate import Certificate
from .errors import NotConverged, fail
from .iteration.driver import Run
from .problem import Problem
from .solvers.base import Solver, Z
from .uniqueness import Unique, unique


@dataclass(frozen=True, eq=False)
class Solution:
    """A solution with what is known of its error; all numbers one a sample, (B,)."""

    x: Tensor  # (B, *event)
    dual: tuple[Tensor, ...]  # one for each h_i(K_i x)
    value: Tensor  # f(x) + g(x) + sum h_i(K_i x)
    solver: Solver  # with its step sizes
    acceleration: Acceleration
    certificate: Certificate
    problem: Problem = field(repr=False)

    @property
    def unique(self) -> tuple[Unique, ...]:
        """Whether it is the only solution, one answer a sample: see `Unique`; worked out here."""
        return unique(self.problem, self.x, self.dual)

    @property
    def degrees_of_freedom(self) -> Tensor:
        """The trace of d(Ax)/db for the data terms LeastSquares(b) @ A, of an accurate solution:
        how many parameters it fits. In closed form on the active manifold [1]; worked out here.

        [1] Vaiter, Deledalle, Peyre, Fadili, Dossal. The degrees of freedom of partly smooth
            regularizers. Ann. Inst. Stat. Math., 2017.

        >>> import torch, bilevel as bl
        >>> y = torch.tensor([[3.0, 0.5, -2.0], [4.0, 2.0, 0.0]])
        >>> bl.solve(bl.LeastSquares(y) + 1.0 * bl.L1()).degrees_of_freedom
        tensor([2., 2.])
        """
        return degrees_of_freedom(self.problem, self.x, self.dual)

    @property
    def gap(self) -> Tensor | None:
        """Relative duality gap, where the problem has one."""
        return self.certificate.gap

    @property
    def residual(self) -> Tensor:
        """|z - T(z)| / |z|."""
        assert self.certificate.residual is not None
        return self.certificate.residual

    @property
    def iterations(self) -> Tensor:
        assert self.certificate.iterations is not None
        return self.certificate.iterations

    @property
    def converged(self) -> Tensor:  # bool
        assert self.certificate.converged is not None
        return self.certificate.converged


def judge(run: Run, z0: Z, solution: Solution) -> None:
    """Raise or warn where the loop that started at z0 ended before its tolerance."""
    left = ~solution.converged
    if not bool(left.any()):
        return
    broken = ~solution.residual.isfinite()
    told = _diverged(solution, broken) if bool(broken.any()) else _late(run, z0, solution, left)
    fail(NotConverged(told, solution), run.on_fail)


def _diverged(solution: Solution, broken: Tensor) -> str:
    return (
        f"the iteration diverged: {int(broken.sum())} of {len(broken)} samples are NaN or inf "
        f"after {int(solution.iterations[broken].max())} steps of {solution.certificate.solver}. A "
        "step size above its limit, a Lipschitz constant set too small, or an energy that is not "
        "convex, not bounded below, or NaN; leave the step sizes out to have them set."
    )


def _late(run: Run, z0: Z, solution: Solution, left: Tensor) -> str:
    gap = ""
    if solution.gap is not None and bool(solution.gap[left].isfinite().all()):
        gap = f"a relative gap of {float(solution.gap[left].max()):.1e} and "
    limit = "max_time" if run.out_of_time() else "max_iter"
    size, start = float(solution.x[left].abs().max()), float(z0[0].abs().max())
    steepest = str(solution.certificate.solver).startswith(("ForwardBackward", "GradientDescent"))
    if steepest and bool(solution.value.isnan().all()):
        advice = "A VectorField that is monotone only, a game say, wants ExtraGradient(). "
    elif size > 1e6 * max(start, 1.0):
        advice = f"x has grown to {size:.0e}: has the energy a minimiser? "
    elif bool(solution.value[left].isinf().any()):
        advice = "x violates a constraint still: have the constraints a point in common? "
    else:
        advice = ""
    return (
        f"{int(left.sum())} of {len(left)} samples did not converge to tol = {run.tol:.0e}: "
        f"{limit} ended the loop after {int(solution.iterations.max())} steps of "
        f"{solution.certificate.solver} at {gap}a relative residual of "
        f"{float(solution.residual[left].max()):.1e}. {advice}Raise max_iter, loosen tol, try "
        "another solver or acceleration, or accept it with on_fail='warn'."
    )
