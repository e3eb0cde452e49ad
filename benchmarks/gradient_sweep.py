"""Every reference problem x every exact strategy: is the gradient right to 1e-8?

The problems of tests/references with 2 to 500 unknowns and matrices whose A^T A has the condition
1 to 1e6, solved to rounding and differentiated by dense linear algebra on the active set; the
error is that of the gradient of <g, x>, g random, relative, of the worst parameter.

    python benchmarks/gradient_sweep.py [rows.jsonl]

results in benchmarks/results/gradient_sweep.md; with a file of rows it goes on where that ends.
"""

import json
import sys
import time
import warnings
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from gradient_errors import ENERGIES, REFERENCES, error  # beside this file
from measure import store

import bilevel as bl
from references import NotSolved, Reference, Theta  # found by gradient_errors

GOAL = 1e-8
STRATEGIES = (bl.FixedPoint(), bl.Implicit(), bl.PartlySmooth())
DIMS, CONDITIONS = (2, 10, 50, 200, 500), (1e0, 1e3, 1e6)
TIGHT = {"tol": 1e-14, "max_iter": 200_000, "max_time": 120.0, "on_fail": "ignore"}


def square(n: int) -> dict:
    side = max(2, round(n**0.5))
    return {"shape": (side, side)}


SIZES = {
    "ridge": lambda n: {"rows": n + 5, "columns": n},
    "logistic": lambda n: {"rows": 2 * n, "columns": n},
    "lasso": lambda n: {"rows": n + 5, "columns": n},
    "elastic_net": lambda n: {"rows": n, "columns": n},
    "group_lasso": lambda n: {"rows": n + 5, "groups": max(2, n // 4), "size": min(4, n)},
    "simplex_least_squares": lambda n: {"rows": n + 5, "columns": n},
    "box_least_squares": lambda n: {"rows": n + 5, "columns": n},
    "l2_ball_least_squares": lambda n: {"rows": n + 5, "columns": n},
    "l2_ball_projection": lambda n: {"columns": n},
    "l1_analysis_box": lambda n: {"n": n},
    "tv1d": lambda n: {"n": n},
    "tv2d_anisotropic": square,
    "tv2d_isotropic": square,
}
SQUARES = {"ridge": "w", "logistic": "w", "elastic_net": "l2"}  # their weights
NORMS = {"lasso": "w", "elastic_net": "l1", "group_lasso": "w"}
WITHOUT_MATRIX = ("l2_ball_projection", "l1_analysis_box", "tv1d", "tv2d_anisotropic",
                  "tv2d_isotropic")  # fmt: skip


def conditioned(name: str, condition: float, rng: np.random.Generator, **size) -> Theta:
    """The drawn problem, the singular values of its A spread from 1 to condition^(-1/2); weights of
    squares smaller by as much, those of norms scaled with the pull A* b of the data: else the
    squares would decide the condition, and solutions be 0."""
    theta = REFERENCES[name].draw(rng, **size)
    A = theta["A"]
    U, s, V = np.linalg.svd(A.reshape(len(A), -1), full_matrices=False)
    theta["A"] = (U * np.logspace(0, -np.log10(condition) / 2, len(s)) @ V).reshape(A.shape)
    if name in SQUARES:
        theta[SQUARES[name]] /= condition
    if name in NORMS:
        pull, former = (np.abs(np.tensordot(theta["b"], M, 1)).max() for M in (theta["A"], A))
        theta[NORMS[name]] *= pull / former / 3
    return theta


def instance(name: str, n: int, condition: float) -> tuple:
    """(theta, exact): the farthest from a kink that is found soon, of the margins tried."""
    reference: Reference = REFERENCES[name]
    if name not in WITHOUT_MATRIX:
        reference = replace(reference, draw=partial(conditioned, name, condition))
    for margin in (1e-3, 1e-5, 1e-7):
        try:
            return reference.instance(1, margin, draws=200 // n + 5, **SIZES[name](n))
        except NotSolved:
            continue
    raise NotSolved(f"{name}: no draw is 1e-7 from a kink, or none is proven")


def measured(name: str, n: int, condition: float) -> list[dict]:
    """One row a strategy."""
    about = {"problem": name, "dim": n, "condition": condition}
    try:
        theta, exact = instance(name, n, condition)
    except (NotSolved, np.linalg.LinAlgError) as failure:
        return [about | {"left out": str(failure)[:100]}]
    g = np.random.default_rng([n, 1]).standard_normal(exact.x.shape)
    rows = []
    for strategy in STRATEGIES:
        leaves = {k: torch.tensor(v, requires_grad=True) for k, v in theta.items()}
        start = time.process_time()
        row = about | {"strategy": type(strategy).__name__, "margin": exact.margin}
        row |= {"nonzeros": int((exact.x != 0).sum())}
        try:
            x = bl.argmin(ENERGIES[name](**leaves), diff=strategy, **TIGHT)
            found = torch.autograd.grad((x * torch.tensor(g)).sum(), list(leaves.values()))
            right, names = exact.vjp(g), list(leaves)
            errors = [error(f.numpy(), right[k]) for k, f in zip(names, found, strict=True)]
            row |= {"x": error(x[0].detach().numpy(), exact.x), "error": max(errors),
                    "parameter": names[int(np.argmax(errors))]}  # fmt: skip
        except (RuntimeError, bl.NotUnique, TypeError) as refusal:
            row |= {"refused": f"{type(refusal).__name__}: {str(refusal)[:80]}"}
        rows.append(row | {"seconds": time.process_time() - start})
    return rows


def line(name: str, condition: float, rows: list[dict]) -> dict:
    """The worst errors of one problem over the dims, a column a strategy."""
    same = [r for r in rows if (r["problem"], r["condition"]) == (name, condition)]
    columns: dict = {"problem": name, "condition": condition}
    for key in ("dim", "nonzeros"):
        columns[key] = list({r["dim"]: r[key] for r in same}.values())
    for strategy in dict.fromkeys(r["strategy"] for r in same):
        columns[strategy] = max(r["error"] for r in same if r["strategy"] == strategy)
    return columns


def missed(row: dict) -> str:
    """Which problem it was, and what was wrong."""
    where = f"{row['problem']}, dim {row['dim']}, condition {row['condition']:.0e}"
    what = row.get("left out") or row.get("refused") or f"{row['error']:.1e}, x {row['x']:.1e}"
    return ", ".join([where, *([row["strategy"]] if "strategy" in row else []), what])


def report(rows: list[dict]) -> None:
    told = [row for row in rows if "error" in row]
    pairs = dict.fromkeys((row["problem"], row["condition"]) for row in told)
    table = [line(*pair, told) for pair in pairs]
    over = [missed(row) for row in rows if not row.get("error", 1.0) <= GOAL]
    notes = (
        "Errors of the gradient, relative, the worst over dims and parameters, against dense "
        "active-set derivatives. condition: of A* A; nonzeros: of the solutions, by dim. The goal "
        f"is {GOAL:.0e}: {len(rows) - len(over)} of {len(rows)} meet it. Those that do not, or "
        f"have no reference: {'; '.join(over) or 'none'}."
    )
    store("gradient_sweep", "Gradients by every exact strategy", table, list(table[0]), notes)


def main() -> None:
    kept = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")
    rows = (
        [json.loads(line) for line in kept.read_text().splitlines()]
        if kept and kept.exists()
        else []
    )
    done = {(r["problem"], r["dim"], r["condition"]) for r in rows}
    for n, condition, name in product(DIMS, CONDITIONS, SIZES):
        once = name in WITHOUT_MATRIX and condition > 1
        if once or (name, n, condition) in done:
            continue
        fresh = measured(name, n, condition)
        rows += fresh
        for row in fresh:
            print(row, flush=True)
        if kept:
            with kept.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in fresh)
    report(rows)


if __name__ == "__main__":
    main()
