"""Learning K to dequantise speech: which gradient, and for how many steps of the solver.

The published gradient (its mask is hardly ever 0: the walls of the cells are as good as absent),
the same without any mask, the exact gradient of the unrolled steps, the truncated ones, the exact
one averaged over random K near K, and the exact derivative of the solution. Fewer steps of
learning than in the papers (about two epochs of the speech frames), with larger step sizes that
shrink.

    python benchmarks/speech_arms.py [ARM ...]      # benchmarks/results/speech_arms.md
"""

import sys
import time
from dataclasses import dataclass

import torch
from measure import former, store
from speech_data import HALF, coarse, frames, loud, spread
from torch import Tensor

import bilevel as bl
from bilevel.layers import Dequantize
from bilevel.tasks.dequantize import cosines, spectral

STEPS, BATCH, HALVED = 2400, 32, 600
COUNTS = (1, 3, 10, 20, 30, 50, 80, 100, 200, 400)  # inference steps at which to look
TEST = 160  # frames to judge on
NOISE = 0.003  # standard deviation of the entries' noise, of about 0.06


@dataclass(frozen=True, eq=False)
class Published(bl.Box):
    """The mask of the published program: it compares z - 2 x with 1, where z - x with the radius of
    the cell would be right."""

    def prox(self, x: Tensor, step: Tensor | float) -> Tensor:
        centre = (self.lower + self.upper) / 2
        passed = ((x - 2 * centre).abs() <= 1) * x
        return passed + (super().prox(x, step) - passed).detach()


class PublishedModel(Dequantize):
    def energy(self, x: Tensor, radius: float) -> bl.Problem:
        sparse, _ = super().energy(x, radius).terms
        return sparse + Published(x - radius, x + radius)


class Smoothed(Dequantize):
    """K with noise while learning: one sample of the gradient of the averaged loss."""

    @property
    def _units(self) -> Tensor:
        rows = self.rows + NOISE * torch.randn_like(self.rows) * self.training
        return rows / rows.norm(dim=1, keepdim=True)


FULL, SHORT = bl.Unroll(), bl.Truncated(20)
BEFORE = {"none: DCT": lambda _: cosines(320).float(), "none: DCT, weighted": spectral}
# name: (kind of model, steps of the solver, relaxed, strategy, steps of learning, frames in each)
ARMS = {
    "published mask, L = 30": (PublishedModel, 30, False, FULL, STEPS, BATCH),
    "no mask, L = 30": (Dequantize, 30, True, FULL, STEPS, BATCH),
    "no mask, 20 terms, L = 30": (Dequantize, 30, True, SHORT, STEPS, BATCH),
    "exact, L = 30": (Dequantize, 30, False, FULL, STEPS, BATCH),
    "exact, 20 terms, L = 30": (Dequantize, 30, False, SHORT, STEPS, BATCH),
    "exact, averaged over K, L = 30": (Smoothed, 30, False, FULL, STEPS, BATCH),
    "no mask, L = 10": (Dequantize, 10, True, FULL, STEPS, BATCH),
    "no mask, 20 terms, L = 100": (Dequantize, 100, True, SHORT, STEPS, BATCH),
    "exact, of the solution": (Dequantize, None, False, bl.PartlySmooth(order=1), 300, 8),
}


def learned(name: str, clean: Tensor, start: Tensor) -> tuple[Dequantize, float, float]:
    """(the model, seconds of the processor, the mean loss of the last tenth)."""
    kind, count, relaxed, diff, steps, batch = ARMS[name]
    torch.manual_seed(0)
    options = {"solver": bl.LinearProgram(), "tol": 1e-6, "on_fail": "ignore"}
    model = kind(start, steps=count, relaxed=relaxed, diff=diff, **({} if count else options))
    groups = [
        {"params": [model.rows], "lr": 1e-3},
        {"params": [model.log_weight], "lr": 1e-2},
    ]
    optimizer, losses, began = torch.optim.Adam(groups), [], time.process_time()
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5 ** (STEPS / HALVED / steps))
    order = torch.randperm(len(clean))
    for k in range(steps):
        y = clean[order[torch.arange(k * batch, (k + 1) * batch) % len(order)]]
        optimizer.zero_grad()
        loss = (model(coarse(y), HALF) - y).square().mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    last = losses[-max(steps // 10, 1) :]
    return model.eval(), time.process_time() - began, sum(last) / len(last)


@torch.no_grad()
def curve(model: Dequantize, clean: Tensor, counts: tuple[int, ...] = COUNTS) -> dict[str, float]:
    """Mean squared error after each number of steps of the solver."""
    energy, x = model.energy(coarse(clean), HALF), coarse(clean)
    solver = model.default_solver(HALF).prepare(energy, x)
    z, at, errors = solver.start(energy, x), 0, {}
    for count in counts:
        for _ in range(count - at):
            z = solver.step(energy, z)
        at, errors[str(count)] = count, float((z[0] - clean).square().mean())
    return errors


def plain(model: Dequantize) -> Dequantize:
    """The same K, nothing relaxed, in float64."""
    return Dequantize(model.analysis.detach().double())


@torch.no_grad()
def at_the_solution(model: Dequantize, clean: Tensor) -> float:
    y = clean.double()
    energy = plain(model).energy(coarse(y), HALF)
    u = bl.solve(energy, x0=coarse(y), solver=bl.LinearProgram(), tol=1e-6, on_fail="warn").x
    return float((u - y).square().mean())


def row(name: str, model: Dequantize, clean: Tensor) -> dict:
    errors = curve(model, clean)
    return {
        "gradient": name,
        "at 30 steps": errors["30"],
        "at 100 steps": errors["100"],
        "at the solution": at_the_solution(model, clean),
        "curve": errors,
    }


def main() -> None:
    torch.set_num_threads(1)
    train, test = frames("train"), frames("dev", 1)
    train = train[loud(train)].float()
    test = spread(test[loud(test)], TEST).float()
    rows = former("speech_arms") if sys.argv[1:] else []
    for name in sys.argv[1:] or [*BEFORE, *ARMS]:
        rows = [r for r in rows if r["gradient"] != name]
        if name in BEFORE:
            rows.append(row(name, Dequantize(BEFORE[name](train)), test))
        else:
            model, seconds, loss = learned(name, train, spectral(train))
            rows.append(row(name, model, test) | {"seconds": seconds, "last loss": loss})
        _store(rows)


def _store(rows: list[dict]) -> None:
    columns = [
        "gradient", "at 30 steps", "at 100 steps", "at the solution", "last loss", "seconds",
    ]  # fmt: skip
    notes = (
        f"Mean squared errors on {TEST} speech frames of dev files with odd list numbers, from the "
        f"weighted DCT, after {STEPS} steps of {BATCH} train frames by Adam, step size 1e-3 "
        f"(weights 1e-2) halved every {HALVED}; one seed. Seconds of the processor, one "
        "thread, shared with others."
    )
    store("speech_arms", "Learning to dequantise: the gradients side by side", rows, columns, notes)


if __name__ == "__main__":
    main()
