"""How many steps to learn K through, all of them recorded or the last 30 terms; what K costs then.

A reduced form of the sweep in "Asymptotic analysis and truncated backpropagation for the unrolled
primal-dual algorithm" (Brauer, Lorenz 2023): 2048 train frames, 3 epochs. Beside it one K whose
rows are held near orthonormal, and ADMM in place of the primal-dual steps.

    python benchmarks/speech_sweep.py      # benchmarks/results/speech_sweep.md
"""

import time

import torch
from measure import store, stored_bytes
from speech_arms import COUNTS, at_the_solution, curve, plain
from speech_data import HALF, coarse, frames, loud, spread
from torch import Tensor

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.tasks.dequantize import spectral

TRAIN, TEST, FEW, EPOCHS, BATCH = 2048, 160, 12, 3, 32
GAP, MOST = 1e-4, 5000
FULL, SHORT = bl.Unroll(), bl.Truncated(30)
PULL = 1e-2  # of |rows rows' - I|^2 / n, beside errors of about 7e-4


class ByADMM(Dequantize):
    """Its step size stands for 1 / rho: both have the scale of the signal over that of K."""

    def default_solver(self, radius: float) -> bl.ADMM:
        tau = super().default_solver(radius).step_size
        return bl.ADMM(penalty=1 / tau)


# name: (kind of model, steps of the solver, strategy, pull)
RUNS = {
    **{f"L = {n}": (Dequantize, n, FULL, 0.0) for n in (10, 30, 80, 100)},
    **{f"L = {n}, 30 terms": (Dequantize, n, SHORT, 0.0) for n in (80, 100)},
    "L = 30, near orthonormal": (Dequantize, 30, FULL, PULL),
    "L = 30, ADMM": (ByADMM, 30, FULL, 0.0),
}


def skewed(model: Dequantize) -> Tensor:
    """|rows rows' - I|^2 / n for the rows at length 1: 0 for an orthonormal K."""
    rows = model.analysis / model.weight[:, None]
    return (rows @ rows.mT - torch.eye(len(rows))).square().sum() / len(rows)


def learned(name: str, clean: Tensor, start: Tensor) -> tuple[Dequantize, dict[str, float]]:
    kind, count, diff, pull = RUNS[name]
    torch.manual_seed(0)
    model = kind(start, steps=count, relaxed=True, diff=diff)
    groups = [{"params": [model.rows], "lr": 1e-3}, {"params": [model.log_weight], "lr": 1e-2}]
    optimizer = torch.optim.Adam(groups)
    steps = EPOCHS * len(clean) // BATCH
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    with stored_bytes() as kept:
        (model(coarse(clean[:BATCH]), HALF) - clean[:BATCH]).square().mean()
    megabytes, began = kept.total() / 1e6, time.process_time()
    for _ in range(EPOCHS):
        for part in torch.randperm(len(clean)).split(BATCH):
            y = clean[part]
            optimizer.zero_grad()
            loss = (model(coarse(y), HALF) - y).square().mean() + pull * skewed(model)
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
    errors, few = curve(model, test), spread(test, FEW).double()
    return {
        "learned through": name,
        "at L steps": errors.get(str(model.steps)),
        "at 400": errors["400"],
        "at the solution": at_the_solution(model, spread(test, 32)),
        "condition": float(torch.linalg.cond(model.analysis.detach().double())),
        "steps to gap": steps_to_gap(model, few),
        "curve": errors,
    }


def main() -> None:
    torch.set_num_threads(1)
    train, test = frames("train"), frames("dev", 1)
    train, test = spread(train[loud(train)], TRAIN).float(), spread(test[loud(test)], TEST).float()
    start = spectral(train)
    rows = [row("nothing: DCT, weighted", Dequantize(start), test)]
    for name in RUNS:
        model, cost = learned(name, train, start)
        rows.append(row(name, model, test) | cost)
        _store(rows)


def _store(rows: list[dict]) -> None:
    columns = [
        "learned through", "at L steps", "at 400", "at the solution", "condition", "steps to gap",
        "ms a step", "MB stored",
    ]  # fmt: skip
    notes = (
        f"Reduced: {TRAIN} speech frames of the train files, {EPOCHS} epochs of {BATCH}, Adam, "
        "step size 1e-3 (weights 1e-2) falling to 0, walls left out of the derivative, one seed. "
        f"Mean squared errors on {TEST} speech frames of dev files with odd list numbers ("
        f"steps: {', '.join(map(str, COUNTS))} in the json; solution: 32 of them). Steps to gap: "
        f"median of {FEW} frames to a relative gap of {GAP:g}, {MOST} at most, float64. "
        "Milliseconds of the processor for a step of learning, one thread, on a machine busy with "
        "other work; MB stored for its backward pass."
    )
    store("speech_sweep", "Learning K through more or fewer steps", rows, columns, notes)


if __name__ == "__main__":
    main()
