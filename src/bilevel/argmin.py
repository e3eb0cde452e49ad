"""argmin, solve, hypergradient: the solution of an optimization problem as an ordinary PyTorch
operation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import warm_start
from ._autocast import full_precision
from .acceleration import Acceleration
from .checks import boundary, check_modes, check_options
from .choice import default_solver, default_strategy
from .differentiation.base import Strategy
from .differentiation.certificate import Certificate, merge
from .differentiation.probes import Probe, probing
from .driver import Run, default_tol
from .errors import (
    KinkWarning,
    NoSolution,
    NotConverged,
    NotUnique,
    OnFail,
    fail,
)
from .fixpoint import Fixpoint
from .problem import Problem
from .solvers.base import Solver, Z
from .terms.base import Term


@dataclass(frozen=True, eq=False)
class Solution:
    """A solution with what is known of its error; all numbers one a sample, (B,)."""

    x: Tensor  # (B, *event)
    dual: tuple[Tensor, ...]  # one for each h_i(K_i x)
    value: Tensor  # f(x) + g(x) + sum h_i(K_i x)
    solver: Solver  # with its step sizes
    acceleration: Acceleration
    certificate: Certificate

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


@dataclass
class _Task:
    """One solve, checked and prepared."""

    fixpoint: Fixpoint
    run: Run
    z0: Z


def _prepare(
    energy, x0, solver, acceleration, diff, tol, max_iter, max_time, on_fail, report
) -> _Task:
    check_modes()
    check_options(
        solver=solver, acceleration=acceleration, diff=diff, report=report, tol=tol,
        max_iter=max_iter, max_time=max_time, on_fail=on_fail,
    )  # fmt: skip
    problem, x0 = boundary(energy, x0)
    tol = default_tol(x0.dtype) if tol is None else tol
    if solver is None:
        solver = default_solver(problem)
    solver.check(problem)
    with torch.no_grad():
        solver = solver.prepare(problem, x0)
        if acceleration is None:
            acceleration = solver.acceleration(problem, x0, tol)
        z0 = solver.start(problem, x0)
    run = Run(
        acceleration, tol, max_iter, max_time, on_fail=on_fail, certificate=report or Certificate()
    )
    return _Task(Fixpoint(problem, solver), run, z0)


def solve(
    energy: Problem | Term,
    *,
    x0: Tensor | None = None,
    solver: Solver | None = None,
    acceleration: Acceleration | None = None,
    tol: float | None = None,
    max_iter: int = 20_000,
    max_time: float | None = None,
    on_fail: OnFail = "raise",
) -> Solution:
    """The minimiser of an energy, without a gradient, with its certificate.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[0.0, 0.1, 1.0, 1.1]], dtype=torch.float64)
    >>> bl.solve(bl.LeastSquares(y) + 0.1 * bl.TotalVariation(dims=1)).x
    tensor([[0.1000, 0.1000, 1.0000, 1.0000]], dtype=torch.float64)
    """
    with torch.no_grad(), full_precision():
        task = _prepare(
            energy, x0, solver, acceleration, None, tol, max_iter, max_time, on_fail, None
        )
        z = task.run(task.fixpoint, task.z0)
        solution = _solution(task, z)
    _judge(task, solution)
    return solution


def argmin(
    energy: Problem | Term,
    *,
    x0: Tensor | None = None,
    solver: Solver | None = None,
    acceleration: Acceleration | None = None,
    diff: Strategy | None = None,
    tol: float | None = None,
    max_iter: int = 20_000,
    max_time: float | None = None,
    on_fail: OnFail = "raise",
    report: Certificate | None = None,
) -> Tensor:  # (B, *event)
    """The minimiser of an energy, differentiable with respect to every tensor the energy was built
    from.

    x0: the start, needed where no data term tells the shape of x; it has no gradient. solver,
    acceleration, diff: by the problem's structure (`bl.explain_choice`). tol: relative duality gap
    where there is one, else relative residual of T; both where a gradient is needed; default 1e-8
    in float64, 1e-5 in float32. max_time in seconds. on_fail: "raise" NotConverged, "warn" or
    "ignore", for the forward and the adjoint solve. report: a Certificate to be filled, its adjoint
    part when backward runs.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[0.0, 0.1, 1.0, 1.1]], dtype=torch.float64)
    >>> weight = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    >>> x = bl.argmin(bl.LeastSquares(y) + weight * bl.TotalVariation(dims=1))
    >>> x[0, 0].backward()  # dx/dweight is 1/2 on the first segment
    >>> weight.grad
    tensor(0.5000, dtype=torch.float64)
    """
    with full_precision():
        task = _prepare(
            energy, x0, solver, acceleration, diff, tol, max_iter, max_time, on_fail, report
        )
        run, fixpoint, z0 = task.run, task.fixpoint, task.z0
        strategy = default_strategy(fixpoint.problem) if diff is None else diff
        context = warm_start.current()
        if context is not None:
            z0 = context.recall(like=z0)
        run.settle = strategy.settles and _asks_gradient(fixpoint, z0)
        z = strategy(run, fixpoint, z0) if torch.is_grad_enabled() else run(fixpoint, z0)
        x = fixpoint.primal(z)
        if context is not None:
            context.keep(tuple(part.detach() for part in z))
    run.certificate.strategy = type(strategy).__name__
    run.certificate.update_estimate()
    if not bool(run.certificate.converged.all()):  # type: ignore[union-attr]
        with torch.no_grad():
            _judge(task, _solution(task, tuple(part.detach() for part in z)))
    return _Certified.apply(x, run.certificate) if x.requires_grad else x  # type: ignore[return-value]


def _asks_gradient(fixpoint: Fixpoint, z: Z) -> bool:
    """Whether a tensor behind T requires a gradient: one recorded step tells."""
    if not torch.is_grad_enabled():
        return False
    return any(part.requires_grad for part in fixpoint.T(z))


def _solution(task: _Task, z: Z) -> Solution:
    fixpoint, certificate = task.fixpoint, task.run.certificate
    x = fixpoint.primal(z)
    return Solution(
        x,
        fixpoint.dual(z),
        fixpoint.problem.value(x),
        fixpoint.solver,
        task.run.acceleration,
        certificate,
    )


def _judge(task: _Task, solution: Solution) -> None:
    """Raise or warn where the loop ended before its tolerance."""
    left = ~solution.converged
    if not bool(left.any()):
        return
    broken = ~solution.residual.isfinite()
    told = _diverged(task, solution, broken) if bool(broken.any()) else _late(task, solution, left)
    fail(NotConverged(told, solution), task.run.on_fail)


def _diverged(task: _Task, solution: Solution, broken: Tensor) -> str:
    return (
        f"the iteration diverged: {int(broken.sum())} of {len(broken)} samples are NaN or inf "
        f"after {int(solution.iterations[broken].max())} steps of {task.run.certificate.solver}. A "
        "step size above its limit, a Lipschitz constant set too small, or an energy that is not "
        "convex, not bounded below, or NaN; leave the step sizes out to have them set."
    )


def _late(task: _Task, solution: Solution, left: Tensor) -> str:
    gap = ""
    if solution.gap is not None and bool(solution.gap[left].isfinite().all()):
        gap = f"a relative gap of {float(solution.gap[left].max()):.1e} and "
    limit = "max_time" if task.run.out_of_time() else "max_iter"
    size, start = float(solution.x[left].abs().max()), float(task.z0[0].abs().max())
    if size > 1e6 * max(start, 1.0):
        advice = f"x has grown to {size:.0e}: has the energy a minimiser? "
    elif bool(solution.value[left].isinf().any()):
        advice = "x violates a constraint still: have the constraints a point in common? "
    else:
        advice = ""
    return (
        f"{int(left.sum())} of {len(left)} samples did not converge to tol = {task.run.tol:.0e}: "
        f"{limit} ended the loop after {int(solution.iterations.max())} steps of "
        f"{task.run.certificate.solver} at {gap}a relative residual of "
        f"{float(solution.residual[left].max()):.1e}. {advice}Raise max_iter, loosen tol, try "
        "another solver or acceleration, or accept it with on_fail='warn'."
    )


class _Certified(torch.autograd.Function):
    """x, with its certificate hung on the graph's node, where `hypergradient` finds it."""

    @staticmethod
    def forward(ctx, x: Tensor, certificate: Certificate) -> Tensor:
        ctx.certificate = certificate
        return x.view_as(x)

    @staticmethod
    def backward(ctx, cotangent: Tensor):  # type: ignore[override]
        return cotangent, None


def _certificates(loss: Tensor) -> list[Certificate]:
    """The certificates of all solutions in the graph of the loss, nearest first."""
    found, seen, front = [], set(), [loss.grad_fn]
    while front:
        node = front.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        certificate = getattr(node, "certificate", None)
        if isinstance(certificate, Certificate):
            found.append(certificate)
        front.extend(following for following, _ in node.next_functions)
    return found


def hypergradient(
    loss: Tensor,
    parameters: Iterable[Tensor],
    *,
    create_graph: bool = False,
    probe: bool = False,
) -> tuple[tuple[Tensor, ...], Certificate]:
    """(d loss / d parameters, certificate) of a scalar loss that reads solutions of argmin.

    As torch.autograd.grad; a parameter the loss does not depend on gets zeros. Several solutions
    in one loss give one certificate, their samples end to end. With probe=True backward runs twice
    more and the certificate says how far the gradient depends on which adjoint solution was found
    (`inconsistency`, with NotUnique where there is no derivative) and on which side of nearby kinks
    the solution lies (`influence`, with a KinkWarning); for the implicit strategies.

    >>> import torch, bilevel as bl
    >>> weight = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    >>> y = torch.tensor([[2.0, -0.3]], dtype=torch.float64)
    >>> x = bl.argmin(bl.LeastSquares(y) + weight * bl.L1())
    >>> gradients, certificate = bl.hypergradient(x.sum(), [weight], probe=True)
    >>> gradients
    (tensor(-1., dtype=torch.float64),)
    >>> certificate.influence < 1e-3
    True
    """
    parameters = (parameters,) if isinstance(parameters, Tensor) else tuple(parameters)
    _check_loss(loss, parameters)
    if loss.numel() != 1:
        raise ValueError(
            f"hypergradient needs a scalar loss, got shape {tuple(loss.shape)}. Take its mean."
        )
    certificates = _certificates(loss)
    if not certificates:
        raise NoSolution(
            "this loss does not depend on a solution of argmin with a gradient. Does a parameter "
            "require_grad, and was argmin called outside torch.no_grad()? For an ordinary loss use "
            "torch.autograd.grad."
        )

    def gradient(create: bool, retain: bool | None) -> tuple[Tensor, ...]:
        grads = torch.autograd.grad(loss, parameters, None, retain, create, allow_unused=True)
        pairs = zip(parameters, grads, strict=True)
        return tuple(torch.zeros_like(p) if g is None else g for p, g in pairs)

    found = gradient(create_graph, True if probe or create_graph else None)
    certificate = merge(certificates)
    if probe:
        _examine(gradient, found, parameters, certificate)
    return found, certificate


def _check_loss(loss: object, parameters: tuple[object, ...]) -> None:
    if not isinstance(loss, Tensor):
        raise TypeError(f"hypergradient needs a loss tensor, got {type(loss).__name__}.")
    if not parameters:
        raise ValueError("hypergradient needs parameters, got none: pass model.parameters(), say.")
    for i, parameter in enumerate(parameters):
        if not isinstance(parameter, Tensor) or not parameter.requires_grad:
            what = "no tensor" if not isinstance(parameter, Tensor) else "a tensor without gradient"
            raise ValueError(
                f"parameter {i} of hypergradient is {what}: call requires_grad_() on it before the "
                "energy is built from it."
            )


def _examine(gradient, found: tuple[Tensor, ...], parameters, certificate: Certificate) -> None:
    """The two probes of `hypergradient`, written into the certificate and judged."""
    size = sum(float(g.detach().square().sum()) for g in found) ** 0.5
    with probing(Probe(parameters, random_start=True)):
        other = gradient(False, True)
    moved = sum(float((a.detach() - b).square().sum()) for a, b in zip(found, other, strict=True))
    certificate.inconsistency = inconsistency = moved**0.5 / size if size else 0.0
    with probing(Probe(parameters)) as probe:
        gradient(False, True)
    certificate.influence = influence = max(probe.influence, default=0.0)
    single = any(g.dtype != torch.float64 for g in found)
    if inconsistency > (1e-2 if single else 1e-4):
        raise NotUnique(
            "two solutions of the adjoint system give gradients that differ by "
            f"{inconsistency:.1e}: the solution has no derivative in these parameters "
            "(the dual is not unique and reaches them). Parametrise them so that they keep the "
            "structure, e.g. difference filters of zero mean."
        )
    if influence > (0.1 if single else 1e-3):
        warnings.warn(
            f"the gradient changes by {influence:.1e} when nearby kinks fall on the "
            "other side: near this point only directional derivatives exist. The gradient is that "
            "of one side.",
            KinkWarning,
            stacklevel=3,
        )


__all__: Sequence[str] = ["Solution", "argmin", "hypergradient", "solve"]
