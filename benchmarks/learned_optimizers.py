"""Learned optimizers and a learned line search, on problems that the training has not seen.

python benchmarks/learned_optimizers.py    results in benchmarks/results/learned_optimizers.md; with
                                           names, "digits", these alone, the other rows kept

Quadratics |W x - y|^2 / 2 of 10 dims, W, y and the start Gaussian; and the cross-entropy of small
networks, 64-16-10 with tanh, on 256 digits of scikit-learn each, from random starts: training takes
them from one half of the digits, the test from the other. A CoordinatewiseLSTM for each is trained
on 100 steps, in windows of 20, log(E + floor) equally weighted, and followed for 1000, from three
seeds of the network and of the draws. Adam, and Nesterov's method as in torch, have the step size
and the momentum of a search on problems of the training: those with the least mean energy after 100
steps. LearnedLineSearch is trained on 20 steps for quadratics, its energy counted at the end.
Energies are means over the test problems.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product

import torch
from measure import former, store
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import cross_entropy

import bilevel as bl

HORIZON, LONG = 100, 1000
SEEDS = (0, 1, 2)
STEPS = [0.003 * 10 ** (k / 4) for k in range(13)]  # 0.003 to 3
MOMENTA = (0.8, 0.9, 0.95, 0.99)
Problems = tuple[bl.Term, Tensor]  # an energy, and where to start


@dataclass(frozen=True)
class Family:
    """draw(count, test) -> so many problems."""

    name: str
    draw: Callable[[int, bool], Problems]
    step_size: float  # of T, for the learned rule and its guard
    floor: float  # energies below do not count in the training
    batch: int
    updates: int
    test: int  # problems


def quadratics() -> Callable[[int, bool], Problems]:
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]

    def draw(count: int, test: bool) -> Problems:
        W = torch.randn(count, 10, 10, generator=generators[test])
        y, x0 = torch.randn(2, count, 10, generator=generators[test])
        return bl.LeastSquares(y) @ bl.Matrix(W), x0

    return draw


def networks(hidden: int = 16, samples: int = 256) -> Callable[[int, bool], Problems]:
    bunch = load_digits()
    images, labels = (
        torch.from_numpy(bunch.data / 16).float(),
        torch.from_numpy(bunch.target).long(),
    )
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    halves = order.chunk(2)
    generators = [torch.Generator().manual_seed(seed) for seed in (2, 3)]
    sizes = [64 * hidden, hidden, 10 * hidden, 10]
    spread = torch.cat(
        [torch.full((size,), s) for size, s in zip(sizes, (0.125, 0, 0.25, 0), strict=True)]
    )

    def draw(count: int, test: bool) -> Problems:
        half, generator = halves[test], generators[test]
        some = torch.stack(
            [half[torch.randperm(len(half), generator=generator)[:samples]] for _ in range(count)]
        )
        pictures, targets = images[some], labels[some]

        def loss(x: Tensor) -> Tensor:
            W, b, V, c = x.split(sizes, 1)
            inner = torch.baddbmm(b[:, None], pictures, W.reshape(-1, 64, hidden)).tanh()
            logits = torch.baddbmm(c[:, None], inner, V.reshape(-1, hidden, 10))
            return cross_entropy(logits.mT, targets, reduction="none").mean(1)

        return bl.Potential(loss), spread * torch.randn(count, len(spread), generator=generator)

    return draw


FAMILIES = [
    Family("quadratics", quadratics(), 0.02, 0.01, 64, 200, 500),
    Family("digits", networks(), 0.9, 1e-5, 2, 40, 10),
]


def followed(solver: bl.Solver, rule: bl.Acceleration, problems: Problems, steps: int) -> Tensor:
    """The energies (steps + 1, B) along the way."""
    energy, x0 = problems
    with torch.no_grad():
        path = bl.unrolled(solver, steps, acceleration=rule).trajectory(energy, x0)
        return torch.stack([energy.value(x) for x in path])


def by_torch(
    make: Callable[[Tensor], torch.optim.Optimizer], problems: Problems, steps: int
) -> Tensor:
    energy, x0 = problems
    x, values = x0.clone().requires_grad_(), []
    optimizer = make(x)
    for _ in range(steps + 1):
        with torch.no_grad():
            values.append(energy.value(x))
        x.grad = energy.grad(x.detach())
        optimizer.step()
    return torch.stack(values)


def candidates() -> Iterator[tuple[str, str, Callable[[Tensor], torch.optim.Optimizer]]]:
    for lr in STEPS:
        yield "Adam", f"step {lr:.2g}", lambda x, lr=lr: torch.optim.Adam([x], lr=lr)
    for lr, m in product(STEPS, MOMENTA):
        yield (
            "Nesterov",
            f"step {lr:.2g}, momentum {m:g}",
            lambda x, lr=lr, m=m: torch.optim.SGD([x], lr=lr, momentum=m, nesterov=True),
        )


def tuned(family: Family) -> dict[str, tuple[str, Callable[[Tensor], torch.optim.Optimizer]]]:
    """The best of each kind after 100 steps."""
    problems, best = family.draw(min(family.test, 200), False), {}
    for kind, options, make in candidates():
        end = float(by_torch(make, problems, HORIZON)[-1].mean())
        if end < best.get(kind, (float("inf"),))[0]:
            best[kind] = (end, options, make)
    return {kind: (options, make) for kind, (_, options, make) in best.items()}


def row(family: str, method: str, values: Tensor, **more: object) -> dict:
    curve = values.mean(1).tolist()
    marks = {f"E, step {k}": curve[k] for k in (20, HORIZON, LONG) if k < len(curve)}
    return {"problems": family, "method": method, **marks, **more, "curve": curve}


def beyond(values: Tensor, guard: Tensor) -> dict:
    """What an unguarded rule does at ten times its horizon, (steps + 1, B) beside its guard."""
    end, safe = values[LONG], guard[LONG]
    shares = {"rise": end > values[HORIZON], "above guard": end > safe}
    return {k: f"{100 * float(v.float().mean()):.1f} %" for k, v in shares.items()} | {
        "median / guard": float((end / safe).median()),
        "peak": float((values[HORIZON:].amax(0) / values[HORIZON]).max()),
    }


def learned(family: Family) -> list[dict]:
    solver = bl.GradientDescent(step_size=family.step_size)
    problems = family.draw(family.test, True)
    guard = followed(solver, bl.Nesterov(), problems, LONG)
    rows = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        rule, start = bl.CoordinatewiseLSTM(), time.process_time()
        bl.learn_rule(
            rule, lambda: family.draw(family.batch, False), solver=solver,
            weights=torch.full((HORIZON,), 1 / HORIZON), updates=family.updates,
            loss=lambda E: (E + family.floor).log(), lr=0.01,
        )  # fmt: skip
        spent = time.process_time() - start
        alone = followed(solver, rule, problems, LONG)
        guarded = followed(solver, bl.Guarded(rule, bl.Nesterov()), problems, LONG)
        worse = float((guarded > guard).sum())
        name = "learned" if seed == SEEDS[0] else f"learned, seed {seed}"
        rows += [
            row(family.name, name, alone, seconds=spent, **beyond(alone, guard)),
            row(family.name, f"{name}, guarded", guarded, worse=worse),
        ]
    rows.append(row(family.name, "its guard, Nesterov() with restarts", guard))
    for kind, (options, make) in tuned(family).items():
        rows.append(row(family.name, f"{kind}, {options}", by_torch(make, problems, LONG)))
    return rows


def line_searches(family: Family) -> list[dict]:
    torch.manual_seed(0)
    rule, solver, steps = bl.LearnedLineSearch(), bl.GradientDescent(), 20
    start = time.process_time()
    bl.learn_rule(
        rule, lambda: family.draw(128, False), solver=solver, window=steps,
        weights=torch.eye(steps)[-1], updates=300, lr=0.02,
    )  # fmt: skip
    spent, problems = time.process_time() - start, family.draw(2000, True)
    rules = {"exact line search": bl.ExactLineSearch(), "learned line search": rule}
    return [
        row("quadratics, 20 steps", name, followed(solver, one, problems, steps),
            **({"seconds": spent} if one is rule else {}))
        for name, one in rules.items()
    ]  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    names = sys.argv[1:]
    if names:
        rows = [row for row in former("learned_optimizers") if row["problems"] not in names]
    else:
        rows = line_searches(FAMILIES[0])
    for family in (one for one in FAMILIES if not names or one.name in names):
        rows += learned(family)
        print(*({k: v for k, v in r.items() if k != "curve"} for r in rows), sep="\n", flush=True)
    columns = [
        "problems",
        "method",
        "E, step 20",
        "E, step 100",
        "E, step 1000",
        "worse",
        "rise",
        "above guard",
        "median / guard",
        "peak",
        "seconds",
    ]
    notes = (
        "Means over the test problems. worse: at so many steps, of all problems together, the "
        "guarded rule is above its guard. Of the rule alone: rise, the problems whose energy at "
        "step 1000 is above that at step 100; above guard, those where it is above the guard's; "
        "median / guard, the median ratio of the two; peak, the largest ratio of an energy on the "
        "way from step 100 to 1000 to that at step 100. seconds: of the processor, one thread, "
        "for the training."
    )
    store("learned_optimizers", "Learned optimizers", rows, columns, notes)


if __name__ == "__main__":
    main()
