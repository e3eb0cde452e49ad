"""Unroll's gradient against its number of steps: bias, norm and memory.

A lasso by proximal gradient and an anisotropic TV denoising by Chambolle-Pock, both with squared
distances and with Bregman ones where there are any (non-negative least squares, the dual box of
TV). Memory is what autograd keeps for backward.

    python benchmarks/unrolled_gradients.py              # writes benchmarks/results/
"""

import json
import warnings

import torch
from gradient_errors_report import RESULTS, machine
from measure import stored_bytes

import bilevel as bl

COUNTS = (1, 3, 10, 30, 100, 300, 1000, 3000)


def cases() -> dict:
    """name -> (energy of its data, the data, the solver)."""
    rng = torch.Generator().manual_seed(0)
    A = torch.randn(40, 20, generator=rng) / 40**0.5
    b = (A[:, :6].sum(1) + 0.3 * torch.randn(40, generator=rng))[None]
    y = torch.tensor([0.0, 2.0, 1.0]).repeat_interleave(8)[None]
    y = y + 0.3 * torch.randn(1, 24, generator=rng)

    def positive(b):
        return bl.LeastSquares(b) @ bl.Matrix(A) + bl.NonNegative()

    def tv(y):
        return bl.LeastSquares(y) + 0.5 * bl.L1() @ bl.Gradient(1)

    return {
        "non-negative least squares, projected gradient": (positive, b, bl.ForwardBackward()),
        "non-negative least squares, mirror descent": (positive, b, bl.MirrorDescent()),
        "1-D TV, Chambolle-Pock": (tv, y, bl.PrimalDual()),
        "1-D TV, Chambolle-Pock with Bregman distances": (tv, y, bl.BregmanPrimalDual()),
    }


def gradient(energy, data, solver, **options) -> tuple[torch.Tensor, int]:
    """(the gradient of <c, x> in the data, bytes that autograd kept)."""
    data = data.clone().requires_grad_()
    with warnings.catch_warnings(), stored_bytes() as kept:
        warnings.simplefilter("ignore")  # to stop early is the point here
        x = bl.argmin(energy(data), solver=solver, on_fail="ignore", **options)
    c = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad((c * x).sum(), data)
    return found, kept.total()


def measure(energy, data, solver) -> dict:
    exact, memory = gradient(energy, data, solver, tol=1e-12, diff=bl.FixedPoint())
    rows = []
    for count in COUNTS:
        unrolled, kept = gradient(
            energy, data, solver, tol=1e-15, max_iter=count, diff=bl.Unroll(),
            acceleration=bl.Plain(),
        )  # fmt: skip
        bias, norm = (unrolled - exact).norm() / exact.norm(), unrolled.norm() / exact.norm()
        rows.append({"steps": count, "bias": float(bias), "norm": float(norm), "bytes": kept})
    return {"rows": rows, "fixed point": {"bytes": memory}}


def main() -> None:
    torch.set_default_dtype(torch.float64)
    results = {name: measure(*case) for name, case in cases().items()}
    facts = machine()
    text = json.dumps({"machine": facts, "cases": results}, indent=1) + "\n"
    (RESULTS / "unrolled_gradients.json").write_text(text)
    lines = [
        "# Unroll's gradient against its number of steps",
        "",
        "Bias: relative error. Norm: relative to the exact gradient's. Memory: kept for backward.",
    ]
    for name, result in results.items():
        rows = [f"| {r['steps']} | {r['bias']:.1e} | {r['norm']:.3f} | {r['bytes']} |"
                for r in result["rows"]]  # fmt: skip
        lines += [
            "",
            f"## {name}",
            "",
            "| steps | bias | norm | bytes |",
            "|---|---|---|---|",
            *rows,
        ]
        lines += [f"| `FixedPoint()` | | 1 | {result['fixed point']['bytes']} |"]
    lines += ["", ", ".join(f"{k} {v}" for k, v in facts.items()), ""]
    (RESULTS / "unrolled_gradients.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
