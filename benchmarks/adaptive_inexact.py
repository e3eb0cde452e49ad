"""Learning TV weights: an accuracy that the method finds, against accuracies fixed beforehand.

python benchmarks/adaptive_inexact.py     results in benchmarks/results; needs the shared data.
Counts steps and products, so it does not depend on the machine.
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn

import bilevel as bl

SIZE, COUNT, START = 32, 4, 0.01
CLOSE = 0.02  # dB
STEPS = 20  # at most: all but L-BFGS end before
FIXED = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
BY_LBFGS = FIXED[:2]  # with adjoints to tol / 10 the tighter ones take hours

NOTES = (
    f"Isotropic TV, {COUNT} crops of {SIZE} x {SIZE} from BSD training photographs, float64, mean "
    f"squared error, from the weight {START}, up to {STEPS} outer steps. Denoising: sigma 25/255. "
    "Deblurring: other photographs for each, under a 3 x 3 mean, sigma 10/255, a weight for each "
    "crop; two weights: sigma 5/255, of TV and of |∇x|^2 / 2. Inpainting: half of the pixels, "
    "sigma 15/255, these two weights; each crop: sigma 20/255, a weight of TV for each. The method "
    "was changed for the first five: of these, inpainting and deblurring with two weights were set "
    "aside, and it ended early there (26.40 dB of 27.27 and 29.06 of 29.28) on a first step and a "
    "gradient that were errors of a loose solve, which was mended. The last was set aside "
    "after that, and nothing changed for it. Lower-level steps and adjoint products: over all "
    "samples, with those of tried and refused outer steps; Newton finishes, which only accuracies "
    "of 1e-6 and tighter have, are not counted. PSNR at accurate solutions. 'Same method, fixed' "
    "is AdaptiveInexact with tol = tightest, its adjoints to sqrt(tol); L-BFGS is the default of "
    "learn with the default adjoints, tol/10. To 0.02 dB: until the PSNR stays within 0.02 dB of "
    "the best of all methods."
)


@dataclass(frozen=True, eq=False)
class Task:
    """A weight of TV for all crops, or one for each, is learned on some photographs."""

    name: str
    weights: int
    fixed: list[float]  # the tolerances that it is compared with
    first: int = 0  # photograph
    sigma: float = 25 / 255
    through: str = "nothing"  # "a blur", "holes"
    smooth: bool = False  # two weights for all: of TV, and of |∇x|^2 / 2

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor]:
        """(clean, seen): crops from the middle of BSD training photographs, float64."""
        names = sorted((DATA / "bsd400_180").glob("test_*.png"))[self.first : 360 : 90][:COUNT]
        if not names:
            raise SystemExit(f"{DATA}/bsd400_180 is absent: this benchmark needs the photographs.")
        middle = slice(90 - SIZE // 2, 90 + SIZE // 2)
        crops = [imread(name).astype(np.float64)[None, middle, middle] / 255 for name in names]
        clean = torch.from_numpy(np.stack(crops))
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
        return clean, self.operator(clean) + self.sigma * noise

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weights."""
        return (2,) if self.smooth else (COUNT, 1, 1, 1) if self.weights > 1 else ()

    @property
    def operator(self) -> bl.Operator:
        mean = torch.full((3, 3), 1 / 9, dtype=torch.float64)
        holes = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(1)) < 0.5
        operators = {"a blur": bl.Blur(mean), "holes": bl.Mask(holes)}
        return operators.get(self.through, bl.Identity())

    def energy(self, seen: Tensor, weight: Tensor) -> bl.Problem:
        data = bl.LeastSquares(seen)
        misfit = data if self.through == "nothing" else data @ self.operator
        if not self.smooth:
            return misfit + weight * bl.TotalVariation()
        return (
            misfit + weight[0] * bl.TotalVariation() + weight[1] * bl.LeastSquares() @ bl.Gradient()
        )

    @cache  # noqa: B019
    def psnr(self, log_weights: tuple[float, ...]) -> float:
        """Of the mean squared error, at an accurate solution."""
        clean, seen = self.pairs
        weights = torch.tensor(log_weights, dtype=torch.float64).exp().reshape(self.shape)
        x = bl.solve(self.energy(seen, weights), tol=1e-5).x
        return -10 * float((x - clean).square().mean().log10())


TASKS = [
    Task("one weight", 1, FIXED),
    Task("a weight for each crop", COUNT, FIXED[:3]),
    Task("deblurring", COUNT, FIXED[:3], first=45, sigma=10 / 255, through="a blur"),
    Task("inpainting", 2, FIXED[:3], first=20, sigma=15 / 255, through="holes", smooth=True),
    Task(
        "deblurring, two weights",
        2,
        FIXED[:3],
        first=70,
        sigma=5 / 255,
        through="a blur",
        smooth=True,
    ),
    Task("inpainting, each crop", COUNT, FIXED[:3], first=80, sigma=20 / 255, through="holes"),
]


class Restorer(nn.Module):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.log_weight = nn.Parameter(torch.full(task.shape, math.log(START), dtype=torch.float64))

    def forward(self, seen: Tensor) -> Tensor:
        energy = self.task.energy(seen, self.log_weight.exp())
        return bl.argmin(energy, on_fail="ignore")  # of adjoints asked for more than can be had


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["seen"]) - batch["clean"]).square().mean()


@dataclass(frozen=True)
class Visit:
    """Where an outer step ended, and what all so far took."""

    lower: int  # steps of the lower solver
    products: int  # of the adjoint solver
    psnr: float


def trace(task: Task, optimizer: object, tol: float | None) -> list[Visit]:
    rows, visited, model = [], [], Restorer(task)
    data = [{"clean": c, "seen": n} for c, n in zip(*task.pairs, strict=True)]

    def note(step: int, row: dict) -> None:
        rows.append((row["lower_iterations"], row["adjoint_products"]))
        visited.append(tuple(model.log_weight.detach().flatten().tolist()))

    options = dict(steps=STEPS, optimizer=optimizer, on_step=note, progress=False)
    if tol is None:
        bl.learn(model, data, loss, **options)
    else:
        with bl.accuracy(tol):
            bl.learn(model, data, loss, **options)
    return [
        Visit(lower, products, task.psnr(log_weights))
        for (lower, products), log_weights in zip(np.cumsum(rows, 0).tolist(), visited, strict=True)
    ]


def arms(task: Task) -> list[tuple[str, object, float | None]]:
    def pinned(tol: float):
        return lambda p: bl.AdaptiveInexact(p, tol=tol, tightest=tol)

    bounded = lambda p: bl.AdaptiveInexact(p, worst_case=True)  # noqa: E731
    return [
        ("adaptive", bl.AdaptiveInexact, None),
        *(
            [] if task.through != "nothing" else [("adaptive, worst case", bounded, None)]
        ),  # no bound of |x - x*|
        *((f"same method, fixed {tol:.0e}", pinned(tol), None) for tol in task.fixed),
        *((f"L-BFGS, fixed {tol:.0e}", None, tol) for tol in BY_LBFGS),
    ]


def main() -> None:
    rows = []
    for task in TASKS:
        traces = {}
        for name, optimizer, tol in arms(task):
            traces[name] = trace(task, optimizer, tol)
            print(task.name, name, traces[name][-1], flush=True)
        best = max(visits[-1].psnr for visits in traces.values())
        for name, visits in traces.items():
            end = visits[-1]
            far = [k for k, visit in enumerate(visits) if visit.psnr < best - CLOSE]
            settled = far[-1] + 1 if far else 0  # the first step from which on it is close
            rows.append({
                "problem": task.name, "method": name, "outer steps": len(visits),
                "PSNR": end.psnr, "below the best, dB": best - end.psnr,
                "lower-level steps": end.lower, "adjoint products": end.products,
                "lower-level steps to 0.02 dB":
                    visits[settled].lower if settled < len(visits) else "never",
            })  # fmt: skip
        store(
            "adaptive_inexact", "Adaptive accuracy of the lower level", rows, list(rows[0]), NOTES
        )


if __name__ == "__main__":
    main()
