"""This library and others graded on solution maps in closed form: error of the gradient and cost.

    python benchmarks/gradients/grade.py [library ...]     results/gradients.md

A library that is not installed is left out by name; rows of others than those asked for are kept.
Each map at three random draws; the worst relative error of the gradient of <g, x> in all parameters
together, and the seconds of the processor of forward and backward together (after a warm-up; layers
and compiled functions are kept, energies are not), for a range of accuracies that are asked of the
library's solver.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import torch  # noqa: E402
from measure import RESULTS, store  # noqa: E402  beside this folder
from peers import LIBRARIES, Gradient  # noqa: E402  in it

from bilevel.testing import solution_maps  # noqa: E402

ACCURACIES = (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
SEEDS = (0, 1, 2)
COLUMNS = ["map", "library", "accuracy", "error", "seconds", "failed"]
NOTES = (
    "error: the worst of three draws, relative, all parameters together. seconds: of the "
    "processor, forward and backward, the least of three calls, the mean of three draws; one "
    "thread, other processes ran beside. accuracy: what was asked of the library's solver, in "
    "its own measure; ours runs for 1000 steps at most. sparho gives the gradient in w alone; "
    "deepinv ran without torchvision, which did not load beside this torch."
)


def graded(map: solution_maps.SolutionMap, gradient: Gradient, accuracy: float) -> dict:
    errors, seconds = [], []
    for seed in SEEDS:
        theta = map.draw(seed)
        shape = map.solution(theta).shape
        g = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        times = []
        for _ in range(3):
            start = time.process_time()
            found = gradient(theta, g, accuracy)
            times.append(time.process_time() - start)
        errors.append(solution_maps.error(found, map.gradients(theta, g)))
        seconds.append(min(times))
    return {"error": max(errors), "seconds": sum(seconds) / len(seconds)}


def rows_of(library: str, gradients: dict[str, Gradient]) -> list[dict]:
    rows = []
    for map in (m for m in solution_maps.MAPS if m.name in gradients):
        for accuracy in ACCURACIES:
            row = {"map": map.name, "library": library, "accuracy": accuracy}
            try:
                row |= graded(map, gradients[map.name], accuracy)
            except Exception as error:  # noqa: BLE001  what it says is its grade
                row |= {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"}
            rows.append(row)
            print(row, flush=True)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    warnings.simplefilter("ignore")  # a coarse accuracy is the point here
    chosen = sys.argv[1:] or list(LIBRARIES)
    stored = RESULTS / "gradients.json"
    rows = json.loads(stored.read_text())["rows"] if stored.exists() else []
    for library in chosen:
        try:
            gradients = LIBRARIES[library]()
        except ImportError as error:
            print(f"{library} is left out: {error}")
            continue
        rows = [row for row in rows if row["library"] != library] + rows_of(library, gradients)
        store("gradients", "Gradients against closed forms", rows, COLUMNS, NOTES)


if __name__ == "__main__":
    main()
