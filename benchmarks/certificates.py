"""Do the certificates tell the truth? Bounds and estimates against true errors, problem by problem.

Random problems of the classes in certificate_problems.py, dims 2 to 500, condition to 1e6, some
degenerate, solved to a random tolerance between 1e-2 and 1e-10; the gradient of 1/2 |x - t|^2, t
random, against references that share no code with the library (for the terms of the registry:
against the derivative along the active set at the solution to rounding).

    python benchmarks/certificates.py [count] [rows.jsonl]

results in benchmarks/results/certificates.md; with a file of rows it goes on where that ends.
"""

import json
import math
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from certificate_problems import CLASSES, Row
from measure import store

import bilevel as bl

MEASURABLE = 1e-10  # a smaller error is the references' own
REFUSALS = (bl.NotUnique, bl.NotConverged)  # said aloud, no wrong number


def one(seed: int) -> dict:
    name = list(CLASSES)[seed % len(CLASSES)]
    rng = np.random.default_rng(seed)
    tol = 10 ** rng.uniform(-10, -2)
    try:
        return {"class": name, "row": CLASSES[name](rng, seed, tol)}
    except REFUSALS as error:
        return {"class": name, "refused": f"{type(error).__name__}: {str(error)[:60]}"}


def summary(name: str, rows: list[Row]) -> dict:
    """The counts and shares of one class."""
    told = [r for r in rows if r.get("error", 0.0) > MEASURABLE]
    bounded = [r for r in rows if "bound" in r]
    broken = sum(r["error"] > r["bound"] + MEASURABLE for r in bounded)
    slack = [r["bound"] / r["error"] for r in told if r.get("bound", math.inf) < math.inf]
    warned = [r["told"] for r in rows if "told" in r]
    return {
        "class": name,
        "problems": len(rows),
        "measurable": len(told),
        "bounds broken": broken if bounded else "",
        "median bound / error": float(np.median(slack)) if slack else "",
        "estimate with probe": within("estimate", told),
        "... no kink warned of": within("estimate", [r for r in told if r["influence"] <= 1e-3]),
        "... support found": within("estimate", [r for r in told if r.get("support found")]),
        "estimate without probe": within("newton", told),
        "degenerate, told": f"{sum(warned)} of {len(warned)}" if warned else "",
    }


def within(key: str, rows: list[Row]) -> str:
    """The share of estimates within 10x of the error, and the median of their ratio."""
    ratios = [r[key] / r["error"] for r in rows if key in r]
    if not ratios:
        return ""
    share = np.mean([0.1 <= ratio <= 10 for ratio in ratios])
    return f"{share:.1%}, median {np.median(ratios):.2g}"


def report(found: list[dict]) -> None:
    rows = {
        name: [f["row"] for f in found if f["class"] == name and "row" in f] for name in CLASSES
    }
    refused = [f"{f['class']}: {f['refused']}" for f in found if "refused" in f]
    table = [summary(name, of) for name, of in rows.items()]
    table.append(summary("all", [row for of in rows.values() for row in of]))
    kinds = {text: refused.count(text) for text in refused}
    since = sum("newton" in row for of in rows.values() for row in of)
    notes = (
        f"{len(found)} problems drawn. measurable: the true error is above 1e-10, below which it "
        "is the references' own. bounds broken: beyond that, too. An estimate with its share "
        "within 10x of the true error, and the median of estimate / error. no kink warned of: "
        f"influence up to 1e-3. without probe: of the last {since} problems, since the estimate "
        "is by the Newton step left. support found: the solution has as many nonzeros as the "
        "exact one (classes with exact zeros). degenerate: a lasso at a kink, or with two equal "
        "columns of which the loss reads one; told: by KinkWarning or NotUnique. Refused aloud: "
        f"{len(refused)} ({kinds if len(kinds) < 9 else 'several reasons'})."
    )
    store("certificates", "Certificates against true errors", table, list(table[0]), notes)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    kept = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")  # coarse solutions, and kinks between them and the exact one
    lines = kept.read_text().splitlines() if kept and kept.exists() else []
    found = [json.loads(line) for line in lines[:count]]
    for seed in range(len(found), count):
        found.append(one(seed))
        if kept:
            with kept.open("a") as file:
                file.write(json.dumps(found[-1]) + "\n")
        if seed % 500 == 499:
            report(found)
    report(found)


if __name__ == "__main__":
    main()
