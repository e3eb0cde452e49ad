"""How far each way of differentiating is from the exact gradient: the bias of the cheap ones.

The same loss <g, x> and the same references as gradient_errors.py, at a few problems of moderate
size. Entries: relative error of the gradient in all parameters together, and the cosine with the
exact one (what a descent method feels). The worst of the seeds.

    python benchmarks/strategy_bias.py                   # writes benchmarks/results/
"""

import argparse
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch

import bilevel as bl

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from gradient_errors import ENERGIES  # noqa: E402  beside this file
from gradient_errors_report import RESULTS, machine  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from references import REFERENCES  # noqa: E402  found by the line above

CASES = [
    ("ridge", "120 x 60", {}),
    ("lasso", "50 x 200", {"rows": 50, "columns": 200}),
    ("l1_analysis_box", "n = 40", {}),
    ("tv1d", "n = 100", {"n": 100}),
    ("tv2d_isotropic", "12 x 12", {}),
]

STRATEGIES = {
    "default": (None, {}),
    "FixedPoint()": (bl.FixedPoint(), {}),
    "Implicit()": (bl.Implicit(), {}),
    "OneStep()": (bl.OneStep(), {}),
    "Truncated(10)": (bl.Truncated(10), {}),
    "Truncated(100)": (bl.Truncated(100), {}),
    "Truncated(1000)": (bl.Truncated(1000), {}),
    "Unroll(last=10)": (bl.Unroll(last=10), {}),
    "Unroll(last=100)": (bl.Unroll(last=100), {}),
    "Unroll(), 10 steps": (bl.Unroll(), {"max_iter": 10}),
    "Unroll(), 100 steps": (bl.Unroll(), {"max_iter": 100}),
    "Unroll(), 1000 steps": (bl.Unroll(), {"max_iter": 1000}),
    "Unroll(), to tol": (bl.Unroll(), {}),
}


def bias(name: str, size: dict, seed: int, strategy, options: dict) -> tuple[float, float]:
    """(relative error, cosine), all parameters in one vector."""
    theta, answer = REFERENCES[name].instance(seed, **size)
    g = np.random.default_rng([seed, 1]).standard_normal(answer.x.shape)
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in theta.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # to stop early is the point here
        x = bl.argmin(ENERGIES[name](**tensors), diff=strategy, on_fail="ignore", **options)
        gradients = torch.autograd.grad((x * torch.tensor(g)).sum(), list(tensors.values()))
    found = np.concatenate([part.numpy().ravel() for part in gradients])
    exact_parts = answer.vjp(g)
    exact = np.concatenate([exact_parts[k].ravel() for k in tensors])
    sizes = np.linalg.norm(found), np.linalg.norm(exact)
    cosine = found @ exact / (sizes[0] * sizes[1]) if sizes[0] > 0 else 0.0
    return float(np.linalg.norm(found - exact) / sizes[1]), float(cosine)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_default_dtype(torch.float64)
    rows = {}
    for label, (strategy, options) in STRATEGIES.items():
        rows[label] = {}
        for name, case, size in CASES:
            runs = [bias(name, size, seed, strategy, options) for seed in range(args.seeds)]
            errors, cosines = zip(*runs, strict=True)
            rows[label][f"{name}, {case}"] = {"error": max(errors), "cosine": min(cosines)}
    show(rows)
    write(rows, args.seeds)


def cells(row: dict) -> list[str]:
    return [f"{cell['error']:.0e} ({cell['cosine']:.3f})" for cell in row.values()]


def show(rows: dict) -> None:
    table = Table("strategy", *next(iter(rows.values())))
    for label, row in rows.items():
        table.add_row(label, *cells(row))
    Console().print(table)


def write(rows: dict, seeds: int) -> None:
    facts, columns = machine(), ["strategy", *next(iter(rows.values()))]
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": facts, "seeds": seeds, "rows": rows}, indent=1) + "\n"
    (RESULTS / "strategy_bias.json").write_text(text)
    lines = [
        "# Bias of the strategies",
        "",
        "Relative error of the gradient (cosine with the exact one), all parameters together; the "
        f"worst of {seeds} instances. Solved at the default tolerance unless a number of steps is "
        "given.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *(f"| {' | '.join([label, *cells(row)])} |" for label, row in rows.items()),
        "",
        ", ".join(f"{k} {v}" for k, v in facts.items()),
        "",
    ]
    (RESULTS / "strategy_bias.md").write_text("\n".join(lines))
    print(f"wrote {RESULTS.name}/strategy_bias.json and .md")


if __name__ == "__main__":
    main()
