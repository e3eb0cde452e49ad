"""How many steps to learn K through, all of them recorded or the last 30 terms; what K costs then.

A reduced form of the sweep in "Asymptotic analysis and truncated backpropagation for the unrolled
primal-dual algorithm" (Brauer, Lorenz 2023): 2048 train frames, 3 epochs. Beside it one K whose
rows are held near orthonormal, ADMM in place of the primal-dual steps, and the papers' own
schedule: all 66 628 frames, 20 epochs at a constant step size (half an hour for 30 steps, an
hour and a half for 80), and one epoch through 1000 steps.

    python benchmarks/speech_sweep.py [RUN ...]      # benchmarks/results/speech_sweep.md
"""

import sys
import time
from dataclasses import dataclass

import torch
from measure import former, store, stored_bytes
from speech_arms import COUNTS, at_the_solution, curve, plain
from speech_data import HALF, coarse, frames, loud, spread
from torch import Tensor

import bilevel as bl
from bilevel.differentiation.base import Strategy
from bilevel.layers import Dequantize
from bilevel.tasks.dequantize import spectral

TRAIN, TEST, FEW, EPOCHS, BATCH = 2048, 160, 96, 3, 32
GAP, MOST = 1e-4, 5000
LOOKS = (*COUNTS, 1000)  # inference steps
FULL, SHORT = bl.Unroll(), bl.Truncated(30)
NOTHING = "nothing: DCT, weighted"
PULL = 1e-2  # of |rows rows' - I|^2 / n, beside errors of about 7e-4


class ByADMM(Dequantize):
    """Its step size stands for 1 / rho: both have the scale of the signal over that of K."""

    def default_solver(self, radius: float) -> bl.ADMM:
        tau = super().default_solver(radius).step_size
        return bl.ADMM(penalty=1 / tau)


@dataclass(frozen=True)
class Run:
    steps: int  # of the solver, L
    diff: Strategy = FULL
    kind: type[Dequantize] = Dequantize
    pull: float = 0.0
    frames: int | None = TRAIN  # None: all, silent ones too
    epochs: int = EPOCHS
    rate: float = 1e-3
    end: float = 0.0  # of the rate, in units of it


PAPERS = {"frames": None, "epochs": 20, "rate": 1e-5, "end": 1.0}
RUNS = {
    **{f"L = {n}": Run(n) for n in (10, 30, 80, 100)},
    **{f"L = {n}, 30 terms": Run(n, SHORT) for n in (10, 30, 80, 100)},
    "L = 30, near orthonormal": Run(30, pull=PULL),
    "L = 30, ADMM": Run(30, kind=ByADMM),
    "L = 1000, 30 terms, 8192 frames": Run(1000, SHORT, frames=8192, epochs=1),
    "L = 1000, 8192 frames": Run(1000, frames=8192, epochs=1),
    **{f"L = {n}, the papers' schedule": Run(n, **PAPERS) for n in (30, 80)},
    **{f"L = {n}, 30 terms, the papers' schedule": Run(n, SHORT, **PAPERS) for n in (30, 80)},
}


def skewed(model: Dequantize) -> Tensor:
    """|rows rows' - I|^2 / n for the rows at length 1: 0 for an orthonormal K."""
    rows = model.analysis / model.weight[:, None]
    return (rows @ rows.mT - torch.eye(len(rows))).square().sum() / len(rows)


def learned(name: str, clean: Tensor, start: Tensor) -> tuple[Dequantize, dict[str, float]]:
    run = RUNS[name]
    torch.manual_seed(0)
    model = run.kind(start, steps=run.steps, relaxed=True, diff=run.diff)
    groups = [
        {"params": [model.rows], "lr": run.rate},
        {"params": [model.log_weight], "lr": 10 * run.rate},
    ]
    optimizer = torch.optim.Adam(groups)
    steps = run.epochs * len(clean) // BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, run.end, steps)
    with stored_bytes() as kept:
        (model(coarse(clean[:BATCH]), HALF) - clean[:BATCH]).square().mean()
    megabytes, began = kept.total() / 1e6, time.process_time()
    for _ in range(run.epochs):
        for part in torch.randperm(len(clean)).split(BATCH):
            y = clean[part]
            optimizer.zero_grad()
            loss = (model(coarse(y), HALF) - y).square().mean() + run.pull * skewed(model)
            loss.backward()
            optimizer.step()
            schedule.step()
    spent = 1e3 * (time.process_time() - began) / steps
    return model.eval(), {"ms a step": spent, "MB stored": megabytes}


@torch.no_grad()
def steps_to_gap(model: Dequantize, clean: Tensor) -> float:
    """The median number of primal-dual steps to a relative gap of 1e-4."""
    x, model = coarse(clean), plain(model)
    solver, energy = model.default_solver(HALF), model.energy(x, HALF)
    solution = bl.solve(energy, x0=x, solver=solver, tol=GAP, max_iter=MOST, on_fail="ignore")
    return float(solution.iterations.double().median())


def row(name: str, model: Dequantize, test: Tensor) -> dict:
    errors, few = curve(model, test, LOOKS), spread(test, FEW).double()
    return {
        "learned through": name,
        "at L steps": errors.get(str(model.steps)),
        "at 400": errors["400"],
        "at the solution": at_the_solution(model, spread(test, 32)),
        "condition": float(torch.linalg.cond(model.analysis.detach().double())),
        "steps to gap": steps_to_gap(model, few),
        "of frames": len(few),
        "curve": errors,
    }


def main() -> None:
    torch.set_num_threads(1)
    everything, test = frames("train").float(), frames("dev", 1)
    speech, test = everything[loud(everything)], spread(test[loud(test)], TEST).float()
    start = spectral(spread(speech, TRAIN))
    rows = former("speech_sweep") if sys.argv[1:] else [row(NOTHING, Dequantize(start), test)]
    for name in sys.argv[1:] or RUNS:
        count = RUNS[name].frames
        model, cost = learned(name, spread(speech, count) if count else everything, start)
        rows = [r for r in rows if r["learned through"] != name]
        rows.append(row(name, model, test) | cost)
        _store(sorted(rows, key=lambda r: [NOTHING, *RUNS].index(r["learned through"])))


def _store(rows: list[dict]) -> None:
    columns = [
        "learned through", "at L steps", "at 400", "at the solution", "condition", "steps to gap",
        "of frames", "ms a step", "MB stored",
    ]  # fmt: skip
    notes = (
        f"Reduced: {TRAIN} speech frames of the train files, {EPOCHS} epochs of {BATCH}, Adam, "
        "step size 1e-3 (weights 1e-2) falling to 0, walls left out of the derivative, one seed. "
        "8192 frames: one epoch of them. The papers' schedule: all 66 628 frames, silent ones too, "
        "20 epochs, step size 1e-5 (weights 1e-4) to the end. "
        f"Mean squared errors on {TEST} speech frames of dev files with odd list numbers ("
        f"steps: {', '.join(map(str, LOOKS))} in the json; solution: 32 of them). Steps to gap: "
        f"median of so many frames to a relative gap of {GAP:g}, {MOST} at most, float64. "
        "Milliseconds of the processor for a step of learning, one thread, on a machine busy with "
        "other work; MB stored for its backward pass."
    )
    store("speech_sweep", "Learning K through more or fewer steps", rows, columns, notes)


if __name__ == "__main__":
    main()
