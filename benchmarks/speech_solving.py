"""How fast |K u|_1 with u in its cells is solved to the end: interior points, first-order steps.

For the DCT and for the K that comes with the package, on speech frames of dev files: steps and
processor time to a relative gap of 1e-6, and what is not there after 5000 steps.

    python benchmarks/speech_solving.py      # benchmarks/results/speech_solving.md
"""

import time

import torch
from measure import store
from speech_data import HALF, coarse, frames, loud, spread
from torch import Tensor

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.tasks.dequantize import cosines, load

FRAMES, FEW, AT_ONCE, GAP = 2048, 12, 512, 1e-6
SOLVERS = {  # name: (solver, frames)
    "LinearProgram": (bl.LinearProgram(), FRAMES),
    "PrimalDual, restarted": (bl.PrimalDual(), FEW),
}


@torch.no_grad()
def row(name: str, analysis: Tensor, method: str, clean: Tensor) -> dict:
    solver, count = SOLVERS[method]
    y = spread(clean, count)
    model, began = Dequantize(analysis.double()), time.process_time()
    how = {"solver": solver, "tol": GAP, "max_iter": 5000, "on_fail": "ignore"}
    parts = coarse(y).split(AT_ONCE)
    answers = [bl.solve(model.energy(x, HALF), x0=x, **how) for x in parts]
    spent = time.process_time() - began
    gap = torch.cat([answer.gap for answer in answers if answer.gap is not None])
    steps = torch.cat([answer.iterations for answer in answers]).double()
    return {
        "K": name,
        "solver": method,
        "frames": len(y),
        "there": float((gap <= GAP).double().mean()),
        "median steps": float(steps.median()),
        "most steps": float(steps.max()),
        "largest gap": float(gap.max()),
        "ms a frame": 1e3 * spent / len(y),
        "error": float((torch.cat([answer.x for answer in answers]) - y).square().mean()),
    }


def adjoint_ms(analysis: Tensor, clean: Tensor, count: int) -> float:
    """Of the backward pass of the solutions of so many frames."""
    y = spread(clean, count)
    model = Dequantize(
        analysis.double(),
        solver=bl.LinearProgram(),
        diff=bl.PartlySmooth(order=1),
        tol=GAP,
        on_fail="warn",  # some lie at a kink
    )
    error = (model(coarse(y), HALF) - y).square().mean()
    began = time.process_time()
    error.backward()
    return 1e3 * (time.process_time() - began)


def main() -> None:
    torch.set_num_threads(1)
    clean = frames("dev")
    clean = clean[loud(clean)]
    operators = {"DCT": cosines(320), "learned": load(None)[0].analysis.detach()}
    adjoint_ms(operators["DCT"], clean, 1)  # torch loads its own parts in a first backward pass
    rows = [row(name, K, method, clean) for method in SOLVERS for name, K in operators.items()]
    for found, K in zip(rows, operators.values(), strict=False):
        found[f"adjoint, ms for {AT_ONCE}"] = adjoint_ms(K, clean, AT_ONCE)
    columns = list(rows[0])
    notes = (
        f"Speech frames, evenly from all dev files; there: the part with a relative gap of {GAP:g} "
        "after at most 5000 steps. A step of LinearProgram is a Cholesky factor of 320 x 320, one "
        "of PrimalDual two products with K (its Newton finish is in the time). Adjoint: the "
        f"derivative of {AT_ONCE} solutions by PartlySmooth, an LU factor of the samples at the "
        "walls of their cells, some 50 of 320. Milliseconds of the processor, one thread."
    )
    store("speech_solving", "Solving the dequantisation energy", rows, columns, notes)


if __name__ == "__main__":
    main()
