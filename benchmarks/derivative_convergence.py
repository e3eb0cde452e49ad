"""Do the derivatives of iterates converge as fast as theory says? Measured slopes.

    python benchmarks/derivative_convergence.py   results/derivative_convergence.md, .json (curves)

min over x of 1/2 |Ax - b|^2 + w/2 |x|^2, and with 3 |x|_1, condition number 100; the derivative
in w along the iterates, by the tangents of every step ("unrolled") and with every iterate replaced
by the solution ("at the solution"). The errors are fitted by c k^p q^k: log q beside that of
theory, and p, the factor that unrolling adds. For proximal gradient, FISTA and primal-dual the
theory's q is the spectral radius of the step's derivative at the solution, on the active manifold.

The last two rows: the gradient of a least value, p(u) = min_x E(x, u), by the dual solution that
belongs to the iterates, of methods with the rate O(1/k^2), for energies without strong convexity:
the slope of log error against log k, of which theory promises -1 or less.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from measure import store
from torch import Tensor

L, M, N = 100.0, 1.0, 8  # largest and least curvature, unknowns
Step = Callable[[Tensor, Tensor], Tensor]  # T(z, w), z a vector


def problem() -> tuple[Tensor, Tensor]:
    """(Q, c): A^T A with curvatures in [M - 1, L - 1] without the ridge of w = 1, and A^T b."""
    generator = torch.Generator().manual_seed(0)
    V = torch.linalg.qr(torch.randn(N, N, generator=generator))[0]
    values = torch.linspace(M, L, N) - 1
    return V * values @ V.mT, 10 * torch.randn(N, generator=generator)


def steps() -> dict[str, tuple[Step, int, float | None]]:
    """name -> (T, entries of z, the theory's q where it has a formula)."""
    Q, c = problem()

    def gradient(x: Tensor, w: Tensor) -> Tensor:
        return Q @ x + w * x - c

    def soft(x: Tensor, level: float) -> Tensor:
        return torch.nn.functional.softshrink(x, level)

    tau, root = 2 / (L + M), (math.sqrt(L) - math.sqrt(M)) / (math.sqrt(L) + math.sqrt(M))
    heavy, penalty = 4 / (math.sqrt(L) + math.sqrt(M)) ** 2, 3.0

    def heavy_ball(z: Tensor, w: Tensor) -> Tensor:
        x, before = z[:N], z[N:]
        return torch.cat([x - heavy * gradient(x, w) + root**2 * (x - before), x])

    def fista(z: Tensor, w: Tensor) -> Tensor:
        x, before = z[:N], z[N:]
        v = x + root * (x - before)
        return torch.cat([soft(v - gradient(v, w) / L, penalty / L), x])

    def primal_dual(z: Tensor, w: Tensor) -> Tensor:
        """Condat-Vu for |Kx|_1, K = I, with the smooth part by its gradient."""
        x, y = z[:N], z[N:]
        new = x - (gradient(x, w) + y) / (0.6 * L)
        return torch.cat([new, (y + 0.09 * L * (2 * new - x)).clamp(-penalty, penalty)])

    return {
        "gradient descent": (lambda x, w: x - tau * gradient(x, w), N, (L - M) / (L + M)),
        "heavy ball": (heavy_ball, 2 * N, root),
        "proximal gradient": (lambda x, w: soft(x - gradient(x, w) / L, penalty / L), N, None),
        "FISTA": (fista, 2 * N, None),
        "primal-dual": (primal_dual, 2 * N, None),
    }


def curves(step: Step, size: int, count: int = 4000) -> tuple[dict[str, list], float]:
    """(errors of z, of the unrolled derivative, of that at the solution; the spectral radius)."""
    w, one = torch.tensor(1.0), torch.tensor(1.0)
    solution = torch.zeros(size)
    for _ in range(40_000):
        solution = step(solution, w)
    J = torch.func.jacrev(step)(solution, w)
    exact = torch.linalg.solve(torch.eye(size) - J, torch.func.jacrev(step, 1)(solution, w))
    z, d, fixed = (torch.zeros(size) for _ in range(3))
    found: dict[str, list] = {"iterate": [], "unrolled": [], "at the solution": []}
    for _ in range(count):
        z, d = torch.func.jvp(step, (z, w), (d, one))
        _, fixed = torch.func.jvp(step, (solution, w), (fixed, one))
        pairs = [(z, solution), (d, exact), (fixed, exact)]
        for kept, (a, b) in zip(found.values(), pairs, strict=True):
            kept.append(float((a - b).norm() / b.norm()))
        if max(kept[-1] for kept in found.values()) < 1e-14:
            break
    return found, float(torch.linalg.eigvals(J).abs().max())


def fitted(errors: list[float]) -> tuple[float, float]:
    """(log q, p) of c k^p q^k, least squares on the upper envelope between 1e-4 and 1e-12."""
    envelope = np.maximum.accumulate(np.array(errors)[::-1])[::-1]
    k = np.arange(1, len(envelope) + 1)
    late = (envelope < 1e-4) & (envelope > 1e-12)
    columns = np.stack([np.ones_like(k, float), k, np.log(k)], 1)[late]
    _, slope, power = np.linalg.lstsq(columns, np.log(envelope[late]), rcond=None)[0]
    return float(slope), float(power)


def value_of_total_variation(count: int) -> list[float]:
    """p(u) = min_x 1/2 |x - u|^2 + w |Dx|_1, by FISTA on the dual a: p'(u) = D* a."""
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(300, generator=generator).cumsum(0) / 4

    def adjoint(a: Tensor) -> Tensor:
        return torch.nn.functional.pad(a, (1, 0)) - torch.nn.functional.pad(a, (0, 1))

    def step(v: Tensor) -> Tensor:
        return (v + (u - adjoint(v)).diff() / 4).clamp(-20, 20)

    return accelerated(step, lambda a: adjoint(a), torch.zeros(299), count)


def value_of_wide_lasso(count: int) -> list[float]:
    """p(u) = min_x 1/2 |Ax - u|^2 + w |x|_1, every column of A twice: x is not unique, the dual
    y = Ax - u is, and p'(u) = -y."""
    generator = torch.Generator().manual_seed(2)
    smooth = torch.randn(100, 60, generator=generator).cumsum(0)
    A = torch.cat([smooth, smooth], 1) / 40
    u = torch.randn(100, generator=generator)
    tau = 1 / float(torch.linalg.matrix_norm(A, 2) ** 2)

    def step(v: Tensor) -> Tensor:
        return torch.nn.functional.softshrink(v - tau * A.mT @ (A @ v - u), tau * 1e-3)

    return accelerated(step, lambda x: u - A @ x, torch.zeros(120), count)


def accelerated(step: Callable, dual: Callable, x: Tensor, count: int) -> list[float]:
    """|p'_k - p'| / |p'| along FISTA without restarts; p' from 30 times as many steps with them."""

    def run(x: Tensor, count: int, restarts: bool) -> list[Tensor]:
        v, t, kept = x, 1.0, []
        for k in range(count):
            new = step(v)
            if restarts and float((v - new) @ (new - x)) > 0:
                t = 1.0
            following = (1 + math.sqrt(1 + 4 * t * t)) / 2
            v, x, t = new + (t - 1) / following * (new - x), new, following
            if not restarts or k == count - 1:
                kept.append(dual(x))
        return kept

    exact = run(x, 30 * count, True)[-1]
    return [float((found - exact).norm() / exact.norm()) for found in run(x, count, False)]


def thinned(curves: dict[str, list], points: int = 300) -> dict[str, list]:
    """At most so many points of each curve, three digits, with their k."""
    count = len(next(iter(curves.values())))
    chosen = sorted({*np.linspace(0, count - 1, points, dtype=int).tolist(), *range(20)})
    few = {kind: [float(f"{errors[k]:.3g}") for k in chosen] for kind, errors in curves.items()}
    return {"k": [k + 1 for k in chosen], **few}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    rows = []
    for name, (step, size, theory) in steps().items():
        found, radius = curves(step, size)
        rate = theory or radius
        row = {"method": name, "q, theory": rate, "log q, theory": math.log(rate)}
        for kind in ("unrolled", "at the solution"):
            slope, power = fitted(found[kind])
            row |= {f"{kind}: log q": slope, f"{kind}: p": power}
            row[f"{kind}: off"] = f"{abs(slope / math.log(rate) - 1):.2%}"
        rows.append(row | {"curves": thinned(found)})
    for name, errors in {
        "least value, total variation": value_of_total_variation(2000),
        "least value, lasso with equal columns": value_of_wide_lasso(2000),
    }.items():
        k = np.arange(1, len(errors) + 1)
        late = k >= 20
        envelope = np.maximum.accumulate(np.array(errors)[::-1])[::-1]
        slope = float(np.polyfit(np.log(k[late]), np.log(envelope[late]), 1)[0])
        constant = float((k * envelope)[late].max())
        rows.append({"method": name, "log-log slope": slope, "k error <=": constant})
        rows[-1]["curves"] = thinned({"dual solution": errors})
    columns = [column for column in rows[0] if column != "curves"] + ["log-log slope", "k error <="]
    notes = "off: of log q, relative. p: the power of k in front, about 1 more for unrolling."
    store("derivative_convergence", "Convergence of derivatives", rows, columns, notes)


if __name__ == "__main__":
    main()
