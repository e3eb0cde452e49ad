"""What every benchmark shares: the machine, alternated pairs with an interval, where results go."""

import datetime
import json
import os
import platform
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy
import torch
from clock import processor_seconds as processor_seconds

RESULTS = Path(__file__).parent / "results"
DATA = Path(__file__).parents[2] / "shared" / "data"


def machine() -> dict[str, str | int]:
    """What the numbers were measured on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "torch threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = (line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def seconds(function: Callable[[], object], least: float = 0.0) -> float:
    """Of a call: of one, or the mean of as many as take so long together."""
    start, calls, passed = time.perf_counter(), 0, 0.0
    while not calls or passed < least:
        function()
        calls, passed = calls + 1, time.perf_counter() - start
    return passed / calls


def ratio(
    ours: Callable[[], object],
    theirs: Callable[[], object],
    pairs: int = 15,
    least: float = 0.0,
) -> dict:
    """ours / theirs in alternated pairs: the median ratio, and 5 % and 95 % of its bootstrap."""
    ours(), theirs()  # warm-up
    times = []
    for k in range(pairs):
        first, second = (ours, theirs) if k % 2 == 0 else (theirs, ours)
        a, b = seconds(first, least), seconds(second, least)
        times.append((a, b) if k % 2 == 0 else (b, a))
    ratios = np.array([a / b for a, b in times])
    draws = np.random.default_rng(0).choice(ratios, (2000, pairs))
    low, high = np.quantile(np.median(draws, axis=1), [0.05, 0.95])
    return {
        "ours_ms": 1e3 * statistics.median(a for a, _ in times),
        "theirs_ms": 1e3 * statistics.median(b for _, b in times),
        "ratio": float(np.median(ratios)),
        "interval_90": [float(low), float(high)],
        "pairs": pairs,
    }


def compared(
    problem: str, ours: Callable[[], object], others: dict[str, Callable[[], object]]
) -> list[dict]:
    """A row for each of the others, by `ratio`, and printed."""
    rows = []
    for what, theirs in others.items():
        found = ratio(ours, theirs, least=0.2)
        row = {"problem": problem, "what": what, "ms": found["theirs_ms"]}
        row |= {"ours ms": found["ours_ms"], "ours / theirs": found["ratio"]}
        rows.append(row | {"90 %": found["interval_90"]})
        print(rows[-1], flush=True)
    return rows


@contextmanager
def stored_bytes() -> Iterator[Counter[int]]:
    """What autograd keeps for its backward pass of what is done inside: bytes by storage, each
    once."""
    kept: Counter[int] = Counter()

    def keep(part: torch.Tensor) -> torch.Tensor:
        kept[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
        return part

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda part: part):
        yield kept


@contextmanager
def allocated() -> Iterator[list[int]]:
    """[what is left of what is allocated inside, the most there was at a time]: bytes of torch's on
    the CPU."""
    sizes = [0, 0]
    with torch.profiler.profile(profile_memory=True) as seen:
        yield sizes
    events = (e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]")
    for event in sorted(events, key=lambda e: e.start_ns()):
        sizes[0] += event.nbytes()
        sizes[1] = max(sizes)


def peak_mib() -> float:
    """The most memory this process has held, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def table(rows: list[dict], columns: list[str]) -> str:
    """Markdown."""

    def cell(value: object) -> str:
        if isinstance(value, list):
            return "[" + ", ".join(cell(v) for v in value) + "]"
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [
        columns,
        ["---"] * len(columns),
        *([cell(r.get(c, "")) for c in columns] for r in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def former(name: str) -> list[dict]:
    """The rows of the last run, none if there was none, for a run that measures some of them; each
    says when it was measured, and on what."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    stored = json.loads(path.read_text())
    return [{"measured": _when(stored["machine"])} | row for row in stored["rows"]]


def _when(about: dict[str, str | int]) -> str:
    return f"{about['date']}, {about['processor']}"


def store(name: str, title: str, rows: list[dict], columns: list[str], notes: str = "") -> None:
    """results/name.json and .md, with the machine and the date, and those of `former` rows where
    they were others; printed too."""
    RESULTS.mkdir(exist_ok=True)
    about = machine()
    if any(row.get("measured", _when(about)) != _when(about) for row in rows):
        columns = [*columns, "measured"]
    (RESULTS / f"{name}.json").write_text(
        json.dumps({"machine": about, "rows": rows}, indent=1) + "\n"
    )
    where = ", ".join(f"{key} {value}" for key, value in about.items())
    text = f"# {title}\n\n{table(rows, columns)}\n\n{notes}\n\nMeasured on: {where}.\n"
    (RESULTS / f"{name}.md").write_text(text.replace("\n\n\n\n", "\n\n"))
    print(text)
