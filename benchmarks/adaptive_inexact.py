"""Learning TV weights: an accuracy that the method finds, against accuracies fixed beforehand.

python benchmarks/adaptive_inexact.py     results in benchmarks/results; needs the shared data.
Counts steps and products, so it does not depend on the machine.
"""

import math
from functools import cache

import numpy as np
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn

import bilevel as bl

SIGMA, SIZE, COUNT, START = 25 / 255, 32, 4, 0.01
CLOSE = 0.02  # dB
STEPS = {"one weight": 15, "a weight for each crop": 20}
FIXED = [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8]
BY_LBFGS = FIXED[:2]  # with adjoints to tol / 10 the tighter ones take hours

NOTES = (
    f"Isotropic TV, {COUNT} crops of {SIZE} x {SIZE} from BSD training photographs, sigma "
    f"25/255, float64, mean squared error, from the weight {START}, at most "
    f"{' and '.join(map(str, STEPS.values()))} outer steps. Work: steps of the lower solver "
    "plus products of the adjoint solver, over all samples; Newton finishes, which only "
    "accuracies of 1e-6 and tighter have, are not counted. PSNR at accurate solutions. 'Same "
    "method, fixed' is AdaptiveInexact with tol = tightest, its adjoints to sqrt(tol); L-BFGS "
    "is the default of learn with the default adjoints, tol/10. 'Work to 0.02 dB': until the "
    "PSNR stays within 0.02 dB of the best of all methods."
)


def photographs() -> tuple[Tensor, Tensor]:
    """(clean, noisy): crops from the middle of BSD training photographs, float64."""
    names = sorted((DATA / "bsd400_180").glob("test_*.png"))[:360:90][:COUNT]
    if not names:
        raise SystemExit(f"{DATA}/bsd400_180 is absent: this benchmark needs the photographs.")
    middle = slice(90 - SIZE // 2, 90 + SIZE // 2)
    crops = [imread(name).astype(np.float64)[None, middle, middle] / 255 for name in names]
    clean = torch.from_numpy(np.stack(crops))
    generator = torch.Generator().manual_seed(0)
    return clean, clean + SIGMA * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)


CLEAN, NOISY = photographs()
DATASET = [{"clean": c, "noisy": n} for c, n in zip(CLEAN, NOISY, strict=True)]


class Denoiser(nn.Module):
    def __init__(self, weights: int) -> None:
        super().__init__()
        shape = (weights, 1, 1, 1) if weights > 1 else ()
        self.log_weight = nn.Parameter(torch.full(shape, math.log(START), dtype=torch.float64))

    def forward(self, noisy: Tensor) -> Tensor:
        energy = bl.LeastSquares(noisy) + self.log_weight.exp() * bl.TotalVariation()
        return bl.argmin(energy, on_fail="ignore")  # of adjoints asked for more than can be had


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["noisy"]) - batch["clean"]).square().mean()


@cache
def psnr(log_weights: tuple[float, ...]) -> float:
    """Of the mean squared error, at an accurate solution."""
    weights = torch.tensor(log_weights, dtype=torch.float64).exp().reshape(-1, 1, 1, 1)
    x = bl.solve(bl.LeastSquares(NOISY) + weights.expand(COUNT, 1, 1, 1) * bl.TotalVariation(),
                 tol=1e-5).x  # fmt: skip
    return -10 * float((x - CLEAN).square().mean().log10())


def trace(weights: int, steps: int, optimizer: object, tol: float | None) -> list[tuple]:
    """(steps and products so far, PSNR) after each step."""
    visited, model = [], Denoiser(weights)

    def note(step: int, row: dict) -> None:
        work = row["lower_iterations"] + row["adjoint_products"]
        done = visited[-1][0] if visited else 0
        visited.append((done + work, tuple(model.log_weight.detach().flatten().tolist())))

    options = dict(steps=steps, optimizer=optimizer, on_step=note, progress=False)
    if tol is None:
        bl.learn(model, DATASET, loss, **options)
    else:
        with bl.accuracy(tol):
            bl.learn(model, DATASET, loss, **options)
    return [(work, psnr(log_weights)) for work, log_weights in visited]


def arms(fixed: list[float]) -> list[tuple[str, object, float | None]]:
    def pinned(tol: float):
        return lambda p: bl.AdaptiveInexact(p, tol=tol, tightest=tol)

    return [
        ("adaptive", bl.AdaptiveInexact, None),
        ("adaptive, worst case", lambda p: bl.AdaptiveInexact(p, worst_case=True), None),
        *((f"same method, fixed {tol:.0e}", pinned(tol), None) for tol in fixed),
        *((f"L-BFGS, fixed {tol:.0e}", None, tol) for tol in BY_LBFGS),
    ]


def main() -> None:
    rows = []
    for problem, steps in STEPS.items():
        weights = 1 if problem == "one weight" else COUNT
        traces = {}
        for name, optimizer, tol in arms(FIXED if weights == 1 else FIXED[:3]):
            traces[name] = trace(weights, steps, optimizer, tol)
            print(problem, name, traces[name][-1], flush=True)
        best = max(points[-1][1] for points in traces.values())
        for name, points in traces.items():
            far = [k for k, (_, value) in enumerate(points) if value < best - CLOSE]
            settled = far[-1] + 1 if far else 0  # the first step from which on it is close
            there = points[settled][0] if settled < len(points) else "never"
            rows.append({
                "problem": problem, "method": name, "outer steps": len(points),
                "PSNR": points[-1][1], "below the best, dB": best - points[-1][1],
                "work to 0.02 dB": there, "work in all": points[-1][0],
            })  # fmt: skip
        store(
            "adaptive_inexact", "Adaptive accuracy of the lower level", rows, list(rows[0]), NOTES
        )


if __name__ == "__main__":
    main()
