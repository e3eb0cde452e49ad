"""128 small quadratic programs with their gradient: InteriorPoint, the first-order solvers, and one
batched LU of the same size to compare machines by.

python benchmarks/quadratic_programs.py        results in benchmarks/results/quadratic_programs.md
"""

from collections.abc import Callable

import numpy as np
import torch
from measure import ratio, store
from torch import Tensor

import bilevel as bl

D = torch.float64
B, N, BANDS, ROWS = 128, 50, 60, 20
Case = tuple[Callable[..., Tensor], Tensor, Tensor, Callable[[Tensor], Tensor]]


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

    return solution, Y, target, exact


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

    return solution, q, target, exact


def forward_and_backward(case: Case, **options) -> Callable[[], tuple[Tensor, Tensor]]:
    solution, parameter, target, _ = case

    def run() -> tuple[Tensor, Tensor]:
        p = parameter.clone().requires_grad_()
        x = solution(p, **options)
        (gradient,) = torch.autograd.grad((x - target).square().sum() / (2 * B), p)
        return x.detach(), gradient

    return run


def row(name: str, case: Case, other: bl.Solver, pairs: int) -> dict:
    ours = forward_and_backward(case, solver=bl.InteriorPoint())
    theirs = forward_and_backward(case, solver=other, max_iter=200_000)
    x, gradient = ours()
    expected = case[3](x)
    error = float((gradient - expected).norm() / expected.norm())
    assert error < 1e-6, error
    what = f"{name}, InteriorPoint / {type(other).__name__}"
    return {"what": what, "goal_ms": 60.0, "error": error, **ratio(ours, theirs, pairs)}


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    simplex, polytope = unmixing(rng), inequalities(rng)
    K, b = torch.randn(B, N + 1, N + 1, dtype=D), torch.randn(B, N + 1, dtype=D)
    lu = ratio(lambda: torch.linalg.solve(K, b), lambda: torch.linalg.solve(K, b))
    rows = [
        row("128 x 50 on the simplex", simplex, bl.ForwardBackward(), 3),
        row("128 x 50, 20 inequalities", polytope, bl.PrimalDual(), 3),
        {"what": "one batched LU, 128 x 51 x 51", **lu},
    ]
    columns = ["what", "ours_ms", "theirs_ms", "ratio", "interval_90", "goal_ms", "error", "pairs"]
    notes = (
        "Forward and backward, float64, one thread, default tolerances. error: of the gradient, "
        "relative to that of a dense solve on the active set."
    )
    store("quadratic_programs", "Quadratic programs", rows, columns, notes)


if __name__ == "__main__":
    main()
