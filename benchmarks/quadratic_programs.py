"""128 small quadratic programs with their gradient: InteriorPoint, the first-order solvers, qpth
and cvxpylayers where they are installed, and one batched LU of the same size to compare machines
by.

python benchmarks/quadratic_programs.py        results in benchmarks/results/quadratic_programs.md
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from measure import processor_seconds, ratio, store
from torch import Tensor

import bilevel as bl

D = torch.float64
B, N, BANDS, ROWS = 128, 50, 60, 20
Run = Callable[[], tuple[Tensor, Tensor]]  # -> (x, gradient)


@dataclass
class Case:
    """A batch of programs, and its gradient in one parameter."""

    name: str
    solution: Callable[..., Tensor]  # of the parameter
    parameter: Tensor
    target: Tensor  # the loss is |x - target|^2 / 2B
    exact: Callable[[Tensor], Tensor]  # the gradient, from x, by a dense solve on the active set
    standard: Callable[[Tensor], tuple[Tensor, ...]]  # Q, q, G, h, E, e with Gx <= h, Ex = e


def unmixing(rng: np.random.Generator) -> Case:
    """min 1/2 |Ax - y|^2 + 1e-3/2 |x|^2 on the simplex, gradient in y."""
    A = np.abs(rng.standard_normal((BANDS, N))) + 0.5
    Y = rng.dirichlet(np.full(N, 0.1), B) @ A.T + 0.02 * rng.standard_normal((B, BANDS))
    A, Y, target = (torch.tensor(v) for v in (A, Y, rng.dirichlet(np.full(N, 0.1), B)))

    def solution(y: Tensor, **options) -> Tensor:
        energy = bl.LeastSquares(y) @ bl.Matrix(A) + 1e-3 * bl.LeastSquares() + bl.Simplex()
        return bl.argmin(energy, **options)

    def exact(x: Tensor) -> Tensor:
        """By the KKT matrix of each sample's support."""
        rows = []
        for x_i, t_i in zip(x, target, strict=True):
            S = (x_i > 1e-9).nonzero()[:, 0]
            K = torch.ones(len(S) + 1, len(S) + 1, dtype=D)
            K[:-1, :-1], K[-1, -1] = A[:, S].T @ A[:, S] + 1e-3 * torch.eye(len(S), dtype=D), 0
            pull = torch.cat([(x_i - t_i)[S] / B, torch.zeros(1, dtype=D)])
            rows.append(A[:, S] @ torch.linalg.solve(K, pull)[:-1])
        return torch.stack(rows)

    def standard(y: Tensor) -> tuple[Tensor, ...]:
        Q, eye = A.T @ A + 1e-3 * torch.eye(N, dtype=D), torch.eye(N, dtype=D)
        none, ones = torch.zeros(N, dtype=D), torch.ones(1, N, dtype=D)
        return Q, -y @ A, -eye, none, ones, torch.ones(1, dtype=D)

    return Case("128 x 50 on the simplex", solution, Y, target, exact, standard)


def inequalities(rng: np.random.Generator) -> Case:
    """min 1/2 <x, Qx> + <q, x>, Gx <= h, gradient in q; as 1/2 |L* x - b|^2 with L L* = Q,
    b = -L^-1 q."""
    M = rng.standard_normal((B, N, N))
    Q = torch.tensor(M @ M.transpose(0, 2, 1) / N + 0.1 * np.eye(N))
    q, G = (
        torch.tensor(rng.standard_normal((B, N))),
        torch.tensor(rng.standard_normal((B, ROWS, N))),
    )
    h = torch.tensor(0.3 * np.abs(rng.standard_normal((B, ROWS))))
    target = torch.tensor(rng.standard_normal((B, N)))
    L = torch.linalg.cholesky(Q)
    factor, rows = bl.Matrix(L.mT.contiguous()), bl.Matrix(G)

    def solution(q: Tensor, **options) -> Tensor:
        b = -torch.linalg.solve_triangular(L, q[..., None], upper=False)[..., 0]
        energy = bl.LeastSquares(b) @ factor + bl.Box(-torch.inf, h) @ rows
        return bl.argmin(energy, **options)

    def exact(x: Tensor) -> Tensor:
        gradients = []
        for i in range(B):
            a = G[i][G[i] @ x[i] - h[i] > -1e-7]
            zeros = torch.zeros(len(a), len(a), dtype=D)
            K = torch.cat([torch.cat([Q[i], a.T], 1), torch.cat([a, zeros], 1)])
            pull = torch.cat([(x[i] - target[i]) / B, torch.zeros(len(a), dtype=D)])
            gradients.append(-torch.linalg.solve(K, pull)[:N])
        return torch.stack(gradients)

    none = torch.Tensor().double()
    name = "128 x 50, 20 inequalities"
    return Case(name, solution, q, target, exact, lambda q: (Q, q, G, h, none, none))


def differentiated(case: Case, solution: Callable[[Tensor], Tensor]) -> Run:
    def run() -> tuple[Tensor, Tensor]:
        p = case.parameter.clone().requires_grad_()
        x = solution(p)
        (gradient,) = torch.autograd.grad((x - case.target).square().sum() / (2 * B), p)
        return x.detach(), gradient

    return run


def by(case: Case, solver: bl.Solver, **options) -> Run:
    return differentiated(case, lambda p: case.solution(p, solver=solver, **options))


def by_qpth(case: Case) -> Run:
    from qpth.qp import QPFunction

    return differentiated(case, lambda p: QPFunction(verbose=-1)(*case.standard(p)))


def by_cvxpylayers(case: Case, **solver_args) -> Run:
    """min 1/2 |Fx|^2 + <q, x>, F*F = Q: the rules of parameters know no <x, Qx>."""
    import cvxpy as cp
    from cvxpylayers.torch import CvxpyLayer

    Q, q, G, h, E, e = case.standard(case.parameter)
    F = torch.linalg.cholesky(Q).mT
    values = {"F": F, "q": q, "G": G, "h": h} | ({"E": E, "e": e} if len(E) else {})
    vectors = ("q", "h", "e")
    shapes = {k: v.shape[-1:] if k in vectors else v.shape[-2:] for k, v in values.items()}
    p = {name: cp.Parameter(tuple(shape)) for name, shape in shapes.items()}
    x = cp.Variable(N)
    constraints = [p["G"] @ x <= p["h"]] + ([p["E"] @ x == p["e"]] if len(E) else [])
    energy = cp.Minimize(cp.sum_squares(p["F"] @ x) / 2 + p["q"] @ x)
    layer = CvxpyLayer(cp.Problem(energy, constraints), list(p.values()), [x])

    def solution(t: Tensor) -> Tensor:
        parameters = values | {"q": case.standard(t)[1]}
        return layer(*parameters.values(), solver_args=solver_args)[0]

    return differentiated(case, solution)


PEERS = {
    "qpth": by_qpth,
    "cvxpylayers": by_cvxpylayers,
    "cvxpylayers to 1e-9, dense adjoint": partial(
        by_cvxpylayers, solve_method="SCS", eps=1e-9, mode="dense"
    ),
}


def rows_of(case: Case, others: dict[str, Run]) -> list[dict]:
    ours = by(case, bl.InteriorPoint())
    expected = case.exact(ours()[0])  # the others' x may be too coarse to tell what is active

    def error(run: Run) -> float:
        return float((run()[1] - expected).norm() / expected.norm())

    least = {
        "goal_ms": 60.0,
        "error": error(ours),
        "processor_ms": 1e3 * processor_seconds(ours, 3.0),
    }
    assert least["error"] < 1e-6, least
    return [
        {
            "what": f"{case.name}, InteriorPoint / {name}",
            **least,
            **ratio(ours, run, 3),
            "their_error": error(run),
        }
        for name, run in others.items()
    ]


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    simplex, polytope = unmixing(rng), inequalities(rng)
    others = {
        case.name: {type(solver).__name__: by(case, solver, max_iter=200_000)}
        for case, solver in ((simplex, bl.ForwardBackward()), (polytope, bl.PrimalDual()))
    }
    here = [name for name in PEERS if find_spec(name.split()[0]) is not None]
    for case in (simplex, polytope):
        others[case.name] |= {name: PEERS[name](case) for name in here}
    missing = [name for name in PEERS if name not in here]
    K, b = torch.randn(B, N + 1, N + 1, dtype=D), torch.randn(B, N + 1, dtype=D)
    lu = ratio(lambda: torch.linalg.solve(K, b), lambda: torch.linalg.solve(K, b))
    rows = [
        *(row for case in (simplex, polytope) for row in rows_of(case, others[case.name])),
        {"what": "one batched LU, 128 x 51 x 51", **lu},
    ]
    columns = [
        "what", "ours_ms", "theirs_ms", "ratio", "interval_90", "processor_ms", "goal_ms", "error",
        "their_error", "pairs",
    ]  # fmt: skip
    notes = (
        "Forward and backward, float64, one thread, default tolerances. error: of the gradient, "
        "relative to that of a dense solve on the active set. processor_ms: the processor's time "
        "of ours, the least of some rounds, as a shared machine only adds to it. "
        + ("" if not missing else f"Not installed: {', '.join(missing)}.")
    )
    store("quadratic_programs", "Quadratic programs", rows, columns, notes)


if __name__ == "__main__":
    main()
