"""argmin, solve: the solution of an optimization problem as an ordinary PyTorch operation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from . import warm_start
from ._autocast import full_precision
from ._compiling import eager
from ._tangents import constant, depends, differentiates
from .acceleration import Acceleration
from .accuracy import current_accuracy
from .checks import Options, boundary, check_modes
from .choice import default_form, default_solver, default_strategy
from .differentiation.base import Strategy
from .differentiation.certificate import Certificate, certified
from .errors import OnFail
from .fixpoint import Fixpoint
from .iteration.driver import Run, default_tol
from .problem import Problem
from .solution import Solution, judge
from .solvers.base import Solver, Z
from .solvers.external import External
from .terms.base import Term


@dataclass
class _Task:
    """One solve, checked and prepared."""

    fixpoint: Fixpoint
    run: Run
    z0: Z


def _prepare(energy: Problem | Term, x0: Tensor | None, options: Options) -> _Task:
    check_modes()
    with constant():
        problem, x0 = boundary(energy, x0)
    level, certificate = current_accuracy(), options.report or Certificate()
    tol, adjoint_tol = options.tol, None
    if level is not None and (tol is None or level.tol is None):
        tol, adjoint_tol = tol or level.tol, level.adjoint_tol
        if level.report is not None:
            level.report.append(certificate)
    elif level is not None:
        level.others += 1
    tol = default_tol(x0.dtype, bool(problem.h)) if tol is None else tol
    solver, rule = options.solver, options.acceleration
    if solver is not None:
        solver.check(problem)
    with constant():
        if solver is None:
            problem = default_form(problem, x0, options.iterates)
            solver = default_solver(problem, x0, options.iterates)
        else:
            solver = solver.prepare(problem, x0)
        if rule is None:
            rule = solver.acceleration(problem, x0, tol)
        z0 = solver.start(problem, x0)
    run = Run(
        rule,
        tol,
        options.max_iter,
        options.max_time,
        dtype=x0.dtype,
        on_fail=options.on_fail,
        certificate=certificate,
        asked_adjoint_tol=adjoint_tol,
    )
    return _Task(Fixpoint(problem, solver), run, z0)


def prepared(energy: Problem | Term, x0: Tensor | None, options: Options) -> _Task:
    """A solve whose answer will be differentiated, ready to run."""
    task = _prepare(energy, x0, options)
    task.run.settle = True
    return task


@eager
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
    >>> bl.solve(bl.LeastSquares(y) + 0.2 * bl.TotalVariation(dims=1), tol=1e-10).x
    tensor([[0.1500, 0.1500, 0.9500, 0.9500]], dtype=torch.float64)
    """
    with constant(), full_precision():
        options = Options(solver, acceleration, None, tol, max_iter, max_time, on_fail)
        task = _prepare(energy, x0, options)
        z = task.fixpoint.landed(task.run(task.fixpoint, task.z0), task.run.tol)
        solution = _solution(task, z)
    judge(task.run, task.z0, solution)
    return solution


@eager
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
    acceleration, diff: by the problem's structure ("how to choose"). tol: relative duality gap
    where there is one, else relative residual of T; both where a gradient is needed; default that
    of the surrounding `accuracy`, else 1e-8 in float64 (1e-6 with composed terms), 1e-5 in float32.
    max_time in seconds. on_fail: "raise" NotConverged, "warn" or "ignore", for the forward and the
    adjoint solve. report: a Certificate to be filled, its adjoint part when backward runs.

    >>> import torch, bilevel as bl
    >>> y = torch.tensor([[0.0, 0.1, 1.0, 1.1]], dtype=torch.float64)
    >>> weight = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    >>> x = bl.argmin(bl.LeastSquares(y) + weight * bl.TotalVariation(dims=1))
    >>> x[0, 0].backward()  # dx/dweight is 1/2 on the first segment
    >>> weight.grad
    tensor(0.5000, dtype=torch.float64)
    """
    with full_precision():
        options = Options(solver, acceleration, diff, tol, max_iter, max_time, on_fail, report)
        fixpoint, z, run = differentiated(energy, x0, options)
        x = fixpoint.primal(z)
    return certified(x, run.certificate) if x.requires_grad else x


def differentiated(
    energy: Problem | Term, x0: Tensor | None, options: Options
) -> tuple[Fixpoint, Z, Run]:
    """(the fixed point, its z with a derivative, the run that found it): what `argmin` and
    `minimum` read their answers off, in full precision."""
    task = _prepare(energy, x0, options)
    run, fixpoint, z0 = task.run, task.fixpoint, task.z0
    with constant():
        strategy = options.diff or default_strategy(
            fixpoint.problem, fixpoint.solver, fixpoint.primal(z0), run.adjoint_tol
        )
    context = warm_start.current()
    if context is not None:
        z0 = context.recall(like=z0)
    run.settle = strategy.settles and _settles(fixpoint, z0)
    z = strategy(run, fixpoint, z0) if differentiates() else run(fixpoint, z0)
    with constant():
        values = tuple(part.detach() for part in z)
        if context is not None:
            context.keep(values)
        run.certificate.strategy = type(strategy).__name__
        run.certificate.update_estimate()
        if (level := current_accuracy()) is not None and level.report is not None:
            x, y = fixpoint.primal(values), fixpoint.dual(values)
            run.certificate.distance = fixpoint.problem.distance(x, y)
            run.certificate.read()
        if options.report is not None:
            options.report.read()
        if not bool(run.certificate.converged.all()):  # type: ignore[union-attr]
            judge(run, task.z0, _solution(task, values))
    return fixpoint, z, run


def _settles(fixpoint: Fixpoint, z: Z) -> bool:
    """Whether a small gap will not do: a tensor behind T requires a gradient, as one recorded step
    tells, of one sample. An external solver's answer is held to it anyway, and Newton's; and where
    there is no gap, all are."""
    solver, problem = fixpoint.solver, fixpoint.problem
    held = isinstance(solver, External) or solver.newton or not problem.has_gap
    if not differentiates() or held:
        return differentiates()
    if len(z[0]) > 1:
        first = torch.arange(1, device=z[0].device)
        one = fixpoint.take(first, z)
        if one is not None:
            fixpoint, z = one, tuple(part[first] for part in z)
    return depends(fixpoint.T(z))


def _solution(task: _Task, z: Z) -> Solution:
    fixpoint, certificate = task.fixpoint, task.run.certificate
    x = fixpoint.primal(z)
    return Solution(
        x,
        fixpoint.dual(z),
        fixpoint.value(z),
        fixpoint.solver,
        task.run.acceleration,
        certificate,
        fixpoint.problem,
    )
