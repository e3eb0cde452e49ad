"""Data cleaning: the learned weights of the samples find the wrong labels, by stochastic methods.

python benchmarks/data_cleaning.py        results in benchmarks/results/data_cleaning.md

scikit-learn's digits, 8 x 8, 1000 to train, 300 to validate, the rest to test. Of the first, 30 %
have a random wrong label, or 60 % the next digit's, so that most labels are wrong. Lower level:
softmax regression with the loss of sample i weighted by sigmoid(theta_i), a ridge of 0.01, in the
last variant an L1 norm too. Upper level: the loss of 200 of the validation samples; the other 100
choose the step sizes, by their loss at the model found. AUC: of -theta as a detector of wrong
labels; which are wrong, and the test's labels, choose nothing.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from measure import store
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import bilevel as bl
from bilevel.learning.batches import Batch, stack
from bilevel.learning.stochastic import StochasticMethod

TRAIN, LEARN, CHOOSE, BATCH, CLASSES, RIDGE, SPARSITY = 1000, 200, 100, 50, 10, 0.01, 2e-3
GRID = list(product((0.1, 0.3), (100.0, 1000.0)))  # of x, of theta

WRONG = {"30 % at random": (0.3, 9), "60 % the next digit": (0.6, 1)}  # share, largest shift


class Weights(nn.Module):
    """A softmax regression whose samples have learned weights."""

    def __init__(self, sparsity: float = 0.0) -> None:
        super().__init__()
        self.sparsity = sparsity
        self.theta = nn.Parameter(torch.zeros(TRAIN))

    def energy(self, batch: Batch) -> bl.Problem:
        weight, images, target = (
            self.theta[batch["index"]].sigmoid(),
            batch["image"],
            batch["target"],
        )

        def fit(x: Tensor) -> Tensor:
            loss = nn.functional.cross_entropy(images @ x[0], target, reduction="none")
            return (weight * loss).mean()[None]

        energy = bl.Potential(fit) + bl.LeastSquares(torch.zeros(()), weight=RIDGE)
        return energy + self.sparsity * bl.L1() if self.sparsity else energy

    def loss(self, x: Tensor, batch: Batch) -> Tensor:
        return nn.functional.cross_entropy(batch["image"] @ x[0], batch["target"])


def digits(wrong: str) -> tuple[list[dict], list[dict], list[dict], dict[str, Tensor], Tensor]:
    """Data to train, to learn, to choose and to test, and which labels of the first are wrong."""
    bunch, generator = load_digits(), torch.Generator().manual_seed(0)
    order = torch.randperm(len(bunch.target), generator=generator)
    images = torch.from_numpy(bunch.data / 16).float()[order]
    target = torch.from_numpy(bunch.target).long()[order]
    share, most = WRONG[wrong]
    flipped = torch.randperm(TRAIN, generator=generator) < round(share * TRAIN)
    shift = torch.randint(1, most + 1, (TRAIN,), generator=generator)
    target[:TRAIN] = (target[:TRAIN] + shift * flipped) % CLASSES
    samples = [{"image": i, "target": t} for i, t in zip(images, target, strict=True)]
    learn, end = TRAIN + LEARN, TRAIN + LEARN + CHOOSE
    return (
        samples[:TRAIN],
        samples[TRAIN:learn],
        samples[learn:end],
        {"image": images[end:], "target": target[end:]},
        flipped,
    )


def fitted(data: list[dict], weight: Tensor) -> Tensor:
    """Softmax regression with these weights, to convergence."""
    model = Weights()
    model.theta.data = weight.logit()
    energy = model.energy(stack(data, torch.arange(TRAIN)))
    return bl.solve(energy, x0=torch.zeros(1, 64, CLASSES), tol=1e-4).x


def accuracy(x: Tensor, test: dict[str, Tensor]) -> float:
    return float(((test["image"] @ x[0]).argmax(1) == test["target"]).float().mean())


def plain(wrong: str) -> list[dict]:
    """All weights equal, and those of the right labels alone."""
    data, _, _, test, flipped = digits(wrong)
    x = fitted(data, torch.full((TRAIN,), 0.5))
    images = torch.stack([sample["image"] for sample in data])
    target = torch.stack([sample["target"] for sample in data])
    losses = nn.functional.cross_entropy(images @ x[0], target, reduction="none")
    return [
        {
            "what": "equal weights; AUC of the samples' own losses",
            "AUC": float(roc_auc_score(flipped, losses)),
            "test accuracy": accuracy(x, test),
        },
        {
            "what": "the right labels alone",
            "test accuracy": accuracy(fitted(data, torch.where(flipped, 1e-6, 0.5)), test),
        },
    ]


def cleaned(
    wrong: str, make: Callable[[float, float], StochasticMethod], steps: int, sparsity: float = 0.0
) -> dict:
    """Of the step sizes with the least loss on the samples that choose."""
    data, learn, choose, test, flipped = digits(wrong)
    held_out, best = stack(choose, torch.arange(CHOOSE)), (float("inf"), {})
    for sizes in GRID:
        model, start = Weights(sparsity), time.process_time()
        try:
            result = bl.learn_stochastic(
                model, data, learn, Weights.energy, Weights.loss, torch.zeros(1, 64, CLASSES),
                method=make(*sizes), steps=steps, batch_size=BATCH,
            )  # fmt: skip
        except bl.NotConverged:  # too large
            continue
        row = {
            "what": type(make(*sizes)).__name__ + (", L1" if sparsity else ""),
            "steps": steps,
            "step sizes": list(sizes),
            "AUC": float(roc_auc_score(flipped, -model.theta.detach())),
            "test accuracy": accuracy(result.x, test),
            "zeros of x": float((result.x == 0).float().mean()),
            "seconds": time.process_time() - start,
        }
        best = min(best, (float(model.loss(result.x, held_out).detach()), row), key=lambda b: b[0])
    return best[1]


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for wrong in WRONG:
        runs = [
            *plain(wrong),
            cleaned(wrong, bl.SOBA, 2000),
            cleaned(wrong, bl.SABA, 2000),
            cleaned(wrong, partial(bl.ALSET, terms=40), 150),
            cleaned(wrong, bl.SABA, 2000, SPARSITY),
        ]
        rows += [{"wrong": wrong, **row} for row in runs]
        print(*runs, sep="\n", flush=True)
    columns = ["wrong", "what", "steps", "step sizes", "AUC", "test accuracy"]
    columns += ["zeros of x", "seconds"]
    notes = f"Batches of {BATCH}. Seconds of the processor, one thread, on a machine in use."
    store("data_cleaning", "Data cleaning", rows, columns, notes)


if __name__ == "__main__":
    main()
