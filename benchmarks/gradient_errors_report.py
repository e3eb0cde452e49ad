"""What gradient_errors.py measured: on the screen, as Markdown, as JSON."""

import json

from measure import RESULTS, machine

GOAL = 1e-8
COLUMNS = (
    *("problem", "case", "parameter", "gradient", "x", "s", "gradient, default tol", "x", "s"),
    *("margin", "self", "solver"),
)


def cells(row: dict) -> list[tuple[str, ...]]:
    """One line a parameter."""
    lines = []
    for i, key in enumerate(row["tight"]["gradient"]):
        head = (row["problem"], row["case"]) if i == 0 else ("", "")
        solves = [
            (f"{solve['gradient'][key]:.1e}", f"{solve['x']:.1e}", f"{solve['seconds']:.1f}")
            for solve in (row["tight"], row["default"])
        ]
        own = f"{row['self'][key]:.0e}" if row["self"] else ""
        solver = str(row["tight"]["certificate"]["solver"])
        lines.append((*head, key, *solves[0], *solves[1], f"{row['margin']:.0e}", own, solver))
    return lines


def show(row: dict) -> None:
    """A line a parameter, those above the goal marked by !."""
    for line in cells({**row, "case": f"{row['case']}, seed {row['seed']}"}):
        mark = "!" if float(line[3]) > GOAL else " "
        name, case, parameter, error, *_, margin, own, solver = line
        print(f"{mark} {name:24}{case:32}{parameter:8}{error:9}margin {margin}  {solver}")
    for remark in remarks([row]):
        print(remark)


def remarks(rows: list[dict]) -> list[str]:
    """What the library warned of."""
    return [
        f"{row['problem']}, {row['case']}, seed {row['seed']}, {solve}: {warning}"
        for row in rows
        for solve in ("tight", "default")
        for warning in row[solve]["warnings"]
    ]


def worst(rows: list[dict]) -> list[dict]:
    """One row a case: the largest errors over the seeds, the smallest margin."""
    cases: dict[tuple, list[dict]] = {}
    for row in rows:
        cases.setdefault((row["problem"], row["case"]), []).append(row)
    return [
        {
            "problem": problem,
            "case": case,
            "margin": min(row["margin"] for row in same),
            "self": _largest([row["self"] for row in same]),
            **{solve: _worst_solve([row[solve] for row in same]) for solve in ("tight", "default")},
        }
        for (problem, case), same in cases.items()
    ]


def _worst_solve(solves: list[dict]) -> dict:
    return {
        "gradient": _largest([solve["gradient"] for solve in solves]),
        **_largest([{k: solve[k] for k in ("x", "seconds")} for solve in solves]),
        "certificate": solves[0]["certificate"],
    }


def _largest(numbers: list[dict[str, float]]) -> dict[str, float]:
    return {key: max(other[key] for other in numbers) for key in numbers[0]}


def write(rows: list[dict], options: dict) -> None:
    facts, table = machine(), worst(rows)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "gradient_errors.json").write_text(
        json.dumps({"machine": facts, "options": options, "rows": rows}, indent=1) + "\n"
    )
    lines = [
        "# Errors of the gradients",
        "",
        "Relative, of the gradient of <g, x> for a random g, against dense active-set derivatives "
        f"that share no code with the library; the worst of {options['seeds']} instances. The goal "
        f"is {GOAL:.0e}.",
        "",
        f"`gradient`, `x` (the solution), `s` (seconds): with tol = {options['tol']:.0e}, then "
        "with the default tol. `margin`: relative distance to the nearest kink. `self`: the "
        "references' own error against central differences of solving again.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(line) + " |" for row in table for line in cells(row)),
        "",
        *(f"- {line}" for line in remarks(rows)),
        "",
        ", ".join(f"{k} {v}" for k, v in facts.items()),
        "",
    ]
    (RESULTS / "gradient_errors.md").write_text("\n".join(lines))
    print(f"wrote {RESULTS.name}/gradient_errors.json and .md")
