"""Searching parameters against differentiating in them: loss over work, 1 to 202 500 parameters.

python benchmarks/search_baselines.py     results in benchmarks/results; needs the shared data and
optuna (extra "bench"). Work counts steps and adjoint products, on any
machine the same.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
import optuna
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn
from torch.nn.functional import interpolate

import bilevel as bl

SIGMA = 25 / 255
LOW, HIGH = math.log(0.01), math.log(0.5)  # of the weights
TOL = 1e-3  # of searches: the loss is right to a thousandth
TRIALS = 30  # of a search
MAPS = {"1": (1, 1), "10": (2, 5), "200": (10, 20), "202500": (450, 450)}  # weights in a grid
NOTES = """\
TV denoising of a photograph with a map of weights, each for a block of pixels; noise of 10 to
40/255, growing to the right; mean squared error to the clean image, which is what is learned
from: a test of optimizers, not of denoisers. 80 x 80 pixels, 450 x 450 for 202 500 weights,
float32. All weights are in [0.01, 0.5]; AdaptiveInexact begins in the middle, and its
"evaluations" are outer steps; searches draw the logarithms of weights and solve to a gap of 1e-3.
Where a grid has too many corners, it takes one weight for all. Work: steps of the lower solver
plus products of the adjoint solver. The Gaussian process is optuna's GPSampler, seed 0."""
STEPS = {"1": 10, "10": 15, "200": 20, "202500": 12}


def photograph(size: int) -> tuple[Tensor, Tensor]:
    """(clean, noisy), (1, 1, size, size): BSD photographs side by side, noise growing to the
    right."""
    names = sorted((DATA / "bsd400_180").glob("test_*.png"))[:9]
    if not names:
        raise SystemExit(f"{DATA}/bsd400_180 is absent: this benchmark needs the photographs.")
    images = [imread(name).astype(np.float32) / 255 for name in names]
    rows = [np.hstack(images[k : k + 3]) for k in (0, 3, 6)]
    offset = (540 - 450) // 2 if size == 450 else 50
    clean = torch.from_numpy(np.vstack(rows)[None, None, offset:, offset:][..., :size, :size])
    generator = torch.Generator().manual_seed(0)
    strength = SIGMA * torch.linspace(0.4, 1.6, size)
    return clean, clean + strength * torch.randn(clean.shape, generator=generator)


class Denoiser(nn.Module):
    """TV with a map of weights, each for a block of the image."""

    def __init__(self, shape: tuple[int, int]) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(shape))  # from there to [0, 1] by the logistic curve

    def forward(self, noisy: Tensor) -> Tensor:
        weights = (LOW + (HIGH - LOW) * self.place.sigmoid()).exp()[None, None]
        weights = interpolate(weights, noisy.shape[-2:])
        return bl.argmin(bl.LeastSquares(noisy) + weights * bl.TotalVariation())


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return (model(batch["noisy"]) - batch["clean"]).square().mean()


def gradient(name: str, data: list[dict], optimizer: object) -> list[tuple[int, float]]:
    """(work so far, best loss so far) of a bilevel method."""
    points: list[tuple[int, float]] = []

    def note(step: int, row: dict) -> None:
        before, best = points[-1] if points else (0, math.inf)
        work = before + row["lower_iterations"] + row["adjoint_products"]
        points.append((work, min(best, row["loss"])))

    bl.learn(Denoiser(MAPS[name]), data, loss, optimizer=optimizer, steps=STEPS[name],
             on_step=note, progress=False)  # fmt: skip
    return points


def search(
    name: str,
    batch: dict[str, Tensor],
    draw: Callable[[], np.ndarray | None],
    tell: Callable[[float], object] = lambda value: None,
) -> list[tuple[int, float]]:
    """The same of a method that asks for losses alone, at points of the unit cube."""
    model, points = Denoiser(MAPS[name]).requires_grad_(False), []
    while (point := draw()) is not None:
        at = torch.as_tensor(point, dtype=torch.float32).reshape(MAPS[name])
        model.place.copy_(at.logit())
        with bl.accuracy(TOL, report=[]) as level:
            value = float(loss(model, batch))
        work, best = points[-1] if points else (0, math.inf)
        work += int(level.report[0].iterations.sum())  # type: ignore[union-attr]
        points.append((work, min(best, value)))
        tell(value)
    return points


def grid(n: int) -> Callable[[], np.ndarray | None]:
    """TRIALS points of the diagonal: one weight for all. Two values a parameter would be 2^n."""
    points = iter(np.linspace(0, 1, TRIALS)[:, None] * np.ones(n))
    return lambda: next(points, None)


def random(n: int) -> Callable[[], np.ndarray | None]:
    rng, left = np.random.default_rng(0), iter(range(TRIALS))
    return lambda: None if next(left, None) is None else rng.random(n)


def gaussian_process(name: str, batch: dict[str, Tensor]) -> list[tuple[int, float]]:
    n = math.prod(MAPS[name])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sampler calls itself experimental
        study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=0))
    asked: list[optuna.Trial] = []

    def draw() -> np.ndarray | None:
        if len(asked) == TRIALS:
            return None
        asked.append(study.ask())
        return np.array([asked[-1].suggest_float(f"w{i}", 0, 1) for i in range(n)])

    return search(name, batch, draw, lambda value: study.tell(asked[-1], value))


def main() -> None:
    rows = []
    for name, shape in MAPS.items():
        n = math.prod(shape)
        clean, noisy = photograph(450 if n > 1000 else 80)
        data = [{"clean": clean[0], "noisy": noisy[0]}]
        batch = {"clean": clean, "noisy": noisy}
        found = {
            "bilevel gradient": gradient(name, data, bl.AdaptiveInexact),
            "grid" if n == 1 else "grid, one weight for all": search(name, batch, grid(n)),
            "random": search(name, batch, random(n)),
        }
        if n <= 200:  # beyond, the covariance of the inputs alone is out of reach
            found["Gaussian process"] = gaussian_process(name, batch)
        for method, points in found.items():
            rows.append({
                "parameters": n, "method": method, "evaluations": len(points),
                "work": points[-1][0], "loss": points[-1][1],
                "PSNR": -10 * math.log10(points[-1][1]), "curve": points,
            })  # fmt: skip
            print({k: v for k, v in rows[-1].items() if k != "curve"}, flush=True)
    columns = [c for c in rows[0] if c != "curve"]
    store("search_baselines", "Search against gradients", rows, columns, NOTES)


if __name__ == "__main__":
    main()
