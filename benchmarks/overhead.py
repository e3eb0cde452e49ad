"""What the library costs beside loops written by hand: lasso, primal-dual, memory, import.

python benchmarks/overhead.py        results in benchmarks/results/overhead.md
"""

import os
import subprocess
import sys

import torch
from measure import peak_mib, ratio, store
from torch import Tensor

import bilevel as bl

D = torch.float64


def lasso() -> tuple:
    """50 x 60, batch 1: solve to a relative gap of 1e-8 and differentiate a loss in the weight."""
    torch.manual_seed(0)
    A, truth = torch.randn(50, 60, dtype=D), torch.zeros(1, 60, dtype=D)
    A /= A.norm(dim=0)
    truth[0, :8] = 3 * torch.randn(8, dtype=D)
    b = truth @ A.T + 0.1 * torch.randn(1, 50, dtype=D)
    weight = 0.1 * float((b @ A).abs().max())

    def by_hand() -> Tensor:
        """FISTA with a gap check every 10 steps; the adjoint by Cholesky on the support."""
        tau = 1 / torch.linalg.matrix_norm(A, 2) ** 2
        x = v = torch.zeros(1, 60, dtype=D)
        t = 1.0
        for k in range(20_000):
            u = v - tau * ((v @ A.T - b) @ A)
            new = u - u.clamp(-tau * weight, tau * weight)
            after = (1 + (1 + 4 * t * t) ** 0.5) / 2
            v, x, t = new + (t - 1) / after * (new - x), new, after
            if k % 10 == 9:
                r = x @ A.T - b
                scale = min(1.0, weight / float((r @ A).abs().max()))
                primal = r.square().sum() / 2 + weight * x.abs().sum()
                dual = -(scale * scale * r.square().sum() / 2 + scale * (r * b).sum())
                if primal - dual < 1e-8 * primal:
                    break
        on = x[0] != 0
        active, pull = A[:, on], 2 * (x - truth)[0, on] / 60
        w = torch.cholesky_solve(pull[:, None], torch.linalg.cholesky(active.T @ active))[:, 0]
        return -(x[0, on].sign() * w).sum()

    def by_library() -> Tensor:
        learned = torch.tensor(weight, dtype=D, requires_grad=True)
        x = bl.argmin(bl.LeastSquares(b) @ bl.Matrix(A) + learned * bl.L1(), tol=1e-8)
        (gradient,) = torch.autograd.grad((x - truth).square().mean(), learned)
        return gradient

    error = abs(float(by_library() / by_hand()) - 1)
    assert error < 1e-6, error
    return by_library, by_hand


def primal_dual(steps: int = 200) -> tuple:
    """min |Kx|_1 over |x - y| <= eta, batch 512, K 320 x 320, float32: the same steps."""
    torch.manual_seed(0)
    K = torch.linalg.qr(torch.randn(320, 320))[0].contiguous()
    y = torch.randn(512, 320)
    tau = sigma = 0.95

    def by_hand(steps: int = steps + 1) -> Tensor:  # the library ends with one plain step more
        x = x_bar = y
        psi = torch.zeros(512, 320)
        for _ in range(steps):
            psi = (psi + sigma * (x_bar @ K.T)).clamp(-1, 1)
            new = torch.minimum(torch.maximum(x - tau * (psi @ K), y - 0.3), y + 0.3)
            x, x_bar = new, 2 * new - x
        return x

    def by_library() -> Tensor:
        energy = bl.Box(y - 0.3, y + 0.3) + bl.L1() @ bl.Matrix(K)
        solver = bl.PrimalDual(step_size=tau, dual_step_size=sigma)
        return bl.solve(
            energy,
            x0=y,
            solver=solver,
            acceleration=bl.Plain(),
            tol=1e-12,
            max_iter=steps,
            on_fail="ignore",
        ).x

    answer = by_library()  # of each sample the last iterate or the one before: the better
    last = torch.stack([by_hand(), by_hand(steps)])
    assert (last - answer).abs().amax(2).amin(0).max() < 1e-4
    return by_library, by_hand


def memory() -> list[dict]:
    """The rise of the peak for TV, 8 x 128 x 128, with gradient; each row in a process."""
    rows = []
    for strategy in ("FixedPoint(linear_solver=bl.BiCGStab(tol=1e-3))", "Unroll()"):
        for steps in (50, 200, 800):
            code = (
                "import torch, bilevel as bl, sys; sys.path.insert(0, 'benchmarks'); from measure "
                "import peak_mib\n"
                "torch.manual_seed(0); y = torch.randn(8, 1, 128, 128); w = torch.tensor(0.5, "
                "requires_grad=True)\n"
                "def run(n): \n"
                "    x = bl.argmin(bl.LeastSquares(y) + w * bl.TotalVariation(), tol=1e-9, "
                "max_iter=n,\n"
                f"        on_fail='ignore', diff=bl.{strategy})\n"
                "    x.square().sum().backward()\n"
                f"run(10); before = peak_mib(); run({steps}); print(peak_mib() - before)"
            )
            out = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            )
            rows.append(
                {
                    "what": f"memory, {strategy.split('(')[0]}, {steps} steps",
                    "MiB": float(out.stdout),
                }
            )
    return rows


def importing() -> dict:
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as by default

    def run(name: str):
        return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True, env=env)

    return {
        "what": "import bilevel / import torch",
        "goal": 1.3,
        **ratio(run("bilevel"), run("torch")),
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = [
        {"what": "lasso 50 x 60, forward + backward", "goal": 3.0, **ratio(*lasso(), pairs=31)},
        {"what": "primal-dual 512 x 320 x 320, 200 steps", "goal": 1.15, **ratio(*primal_dual())},
        importing(),
        *memory(),
    ]
    columns = ["what", "ours_ms", "theirs_ms", "ratio", "interval_90", "goal", "pairs", "MiB"]
    notes = (
        "One thread. MiB: rise of the process's peak; with implicit differentiation it does not "
        "grow with the steps."
    )
    store("overhead", "Overhead", rows, columns, notes)
    print(f"peak of this process {peak_mib():.0f} MiB")


if __name__ == "__main__":
    main()
