"""Data cleaning: the learned weights of the samples find the wrong labels, by stochastic methods.

python benchmarks/data_cleaning.py        results in benchmarks/results/data_cleaning.md

scikit-learn's digits, 8 x 8, 1000 to train, 300 to validate, the rest to test. Of the first, 30 %
have a random wrong label, or 60 % the next digit's, so that most labels are wrong. Lower level:
softmax regression with the loss of sample i weighted by sigmoid(theta_i), a ridge of 0.01, in the
last variant an L1 norm too. Upper level: the validation loss. AUC: of -theta as a detector of wrong
labels.
"""

import time

import torch
from measure import store
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

import bilevel as bl
from bilevel.learning.batches import Batch, stack
from bilevel.learning.stochastic import StochasticMethod

TRAIN, VALIDATE, BATCH, CLASSES, RIDGE, SPARSITY = 1000, 300, 50, 10, 0.01, 2e-3

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


def digits(wrong: str) -> tuple[list[dict], list[dict], dict[str, Tensor], Tensor]:
    """Train, validation and test data, and which labels of the first are wrong."""
    bunch, generator = load_digits(), torch.Generator().manual_seed(0)
    order = torch.randperm(len(bunch.target), generator=generator)
    images = torch.from_numpy(bunch.data / 16).float()[order]
    target = torch.from_numpy(bunch.target).long()[order]
    share, most = WRONG[wrong]
    flipped = torch.randperm(TRAIN, generator=generator) < round(share * TRAIN)
    shift = torch.randint(1, most + 1, (TRAIN,), generator=generator)
    target[:TRAIN] = (target[:TRAIN] + shift * flipped) % CLASSES
    samples = [{"image": i, "target": t} for i, t in zip(images, target, strict=True)]
    end = TRAIN + VALIDATE
    return (
        samples[:TRAIN],
        samples[TRAIN:end],
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
    data, _, test, flipped = digits(wrong)
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


def cleaned(wrong: str, method: StochasticMethod, steps: int, sparsity: float) -> dict:
    data, validation, test, flipped = digits(wrong)
    model, start = Weights(sparsity), time.process_time()
    result = bl.learn_stochastic(
        model, data, validation, Weights.energy, Weights.loss, torch.zeros(1, 64, CLASSES),
        method=method, steps=steps, batch_size=BATCH,
    )  # fmt: skip
    return {
        "what": type(method).__name__ + (", L1" if sparsity else ""),
        "steps": steps,
        "AUC": float(roc_auc_score(flipped, -model.theta.detach())),
        "test accuracy": accuracy(result.x, test),
        "zeros of x": float((result.x == 0).float().mean()),
        "seconds": time.process_time() - start,
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for wrong in WRONG:
        runs = [
            *plain(wrong),
            cleaned(wrong, bl.SOBA(0.3, 1000.0), 3000, 0.0),
            cleaned(wrong, bl.SABA(0.1, 100.0), 3000, 0.0),
            cleaned(wrong, bl.ALSET(0.3, 1000.0, terms=40), 150, 0.0),
            cleaned(wrong, bl.SABA(0.1, 100.0), 3000, SPARSITY),
        ]
        rows += [{"wrong": wrong, **row} for row in runs]
        print(*runs, sep="\n", flush=True)
    columns = ["wrong", "what", "steps", "AUC", "test accuracy", "zeros of x", "seconds"]
    notes = f"Batches of {BATCH}. Seconds of the processor, one thread, on a machine in use."
    store("data_cleaning", "Data cleaning", rows, columns, notes)


if __name__ == "__main__":
    main()
