"""A network that predicts the weight of total variation from the noisy image.

python benchmarks/predicted_weight.py     results in benchmarks/results/predicted_weight.md

Noise of 5 to 50 of 255, drawn at random, unknown to the network. It is learned from the best weight
of each image, by regression, and from there through the solver, by the error of the result; and by
regression once more, with the best weights of more noise, in less time than the solver took. Judged
on other photographs, beside the best weight of each of them, which no method can know. All of it
for several seeds of network and noise.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import bilevel as bl
from bilevel.layers import PredictedTVDenoise

LOW, HIGH = 5 / 255, 50 / 255
SIZE = 180  # pixels
SEEDS = 3
FITS, ROWS = 3000, 32  # steps of a regression, images of a step
STEPS, BATCH = 1600, 4  # through the solver
DRAWS = 6  # of the noise, whose best weights take less time than those steps
LONGER = f"regression, {DRAWS} noises"
HELD_OUT = 4  # every so many-th photograph
SCALES = (1, 2, 4, 8)
PATCH, RANKS = 7, [0, 1, 3, 6, 12, 24, 36, 44]
TOL = 1e-3
NOTES = """\
Images of 180 x 180 pixels: 300 of the photographs of bsd400_180 to learn from, the other 100 (held
out: the steps and what the network sees were chosen by them, with other noise) and a crop from each
of bsd68 to judge, which were looked at, with other noise, before the patches were added to what
the network sees. Means over the images and {} seeds of network and noise. behind: what the best
weight of each image would add to the PSNR, mean and median. gain: of end to end over this row, with
its standard error: the seeds' mean of an image is one sample. log weight: the root mean square
distance from that weight's logarithm. Regression has the best weights of one noisy version of each
photograph, or of {}. End to end begins at the former and draws new noise at each step. known noise:
weight = exp(a + b log sigma), fitted to the best weights of the images learned from, with the true
sigma; estimated noise: with the median of the mixed differences for it. seconds: of the processor,
to learn, a seed, everything that came before included."""


def features(noisy: Tensor) -> Tensor:  # (B, 1, H, W) -> (B, F)
    parts = noisy.split(16)
    return torch.cat([torch.cat([sizes(part), spectrum(part)], 1) for part in parts])


def sizes(noisy: Tensor) -> Tensor:  # (B, 1, H, W) -> (B, 6 len(SCALES))
    """Logarithms of the median and the mean of the mixed differences and of |gradient|, and of
    their mean in the quietest parts, at each scale. The first tells the noise, or texture; what is
    quietest is rarely texture."""
    found = []
    for scale in SCALES:
        image = avg_pool2d(noisy, scale)
        down, right = image.diff(dim=2)[..., 1:], image.diff(dim=3)[..., 1:, :]
        mixed = image.diff(dim=2).diff(dim=3).abs()
        for size in (mixed, torch.hypot(down, right)):
            parts = avg_pool2d(size, 9, 3).flatten(1)
            whole = size.flatten(1)
            found += [whole.median(1).values, whole.mean(1), parts.quantile(0.02, 1)]
    return (torch.stack(found, 1) + 1e-4).log()


def spectrum(noisy: Tensor) -> Tensor:  # (B, 1, H, W) -> (B, len(RANKS))
    """Logarithms of some eigenvalues of the covariance of all patches, smallest first. Even texture
    leaves the smallest to the noise.

    [1] Chen, Zhu, Heng. An efficient statistical method for image noise level estimation. ICCV,
        2015.
    """
    windows = noisy[:, 0].unfold(1, PATCH, 1).unfold(2, PATCH, 1)
    pixels = windows.permute(0, 3, 4, 1, 2).reshape(len(noisy), PATCH**2, -1)
    mean = pixels.mean(2)
    covariance = pixels @ pixels.mT / pixels.shape[2] - mean[:, :, None] * mean[:, None]
    return torch.linalg.eigvalsh(covariance).clamp(min=1e-9).log()[:, RANKS]


class Predictor(nn.Module):
    """(B, 1, H, W) -> (B,): the logarithm of a weight, an affine function of the `features` plus a
    small network of them, which begins at 0."""

    def __init__(self, seen: Tensor, target: Tensor, width: int = 32) -> None:
        """The affine function: least squares on images whose best weights are known."""
        super().__init__()
        self.register_buffer("centre", seen.mean(0))
        self.register_buffer("spread", seen.std(0))
        self.line = nn.Linear(seen.shape[1], 1)
        self.rest = nn.Sequential(
            nn.Linear(seen.shape[1], width), nn.Tanh(), nn.Linear(width, 1, bias=False)
        )
        with torch.no_grad():
            self.rest[-1].weight.zero_()
            self.line.bias.fill_(float(target.mean()))
            columns = (seen - self.centre) / self.spread
            slight = 1e-2 * torch.eye(columns.shape[1])
            slopes = torch.linalg.solve(
                columns.mT @ columns / len(columns) + slight,
                columns.mT @ (target - target.mean()) / len(columns),
            )
            self.line.weight.copy_(slopes[None])

    def forward(self, noisy: Tensor) -> Tensor:
        return self.by(features(noisy))

    def by(self, seen: Tensor) -> Tensor:  # (B, F) -> (B,)
        seen = (seen - self.centre) / self.spread
        return (self.line(seen) + self.rest(seen))[:, 0]


def photographs(folder: str, seed: int) -> Tensor:
    """A crop of each, (N, 1, SIZE, SIZE)."""
    names = sorted((DATA / folder).glob("*.png"))
    if not names:
        raise SystemExit(f"{DATA / folder} is absent: this benchmark needs the photographs.")
    rng = np.random.default_rng(seed)
    crops = []
    for name in names:
        photo = imread(name).astype(np.float32) / 255
        top, left = (rng.integers(0, n - SIZE + 1) for n in photo.shape)
        crops.append(photo[top : top + SIZE, left : left + SIZE])
    return torch.from_numpy(np.stack(crops)[:, None])


def with_noise(clean: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(noisy, sigma (B,)), log sigma uniform."""
    share = torch.rand(len(clean), generator=generator)
    sigma = LOW * (HIGH / LOW) ** share
    noise = torch.randn(clean.shape, generator=generator)
    return clean + sigma[:, None, None, None] * noise, sigma


def psnr(x: Tensor, clean: Tensor) -> Tensor:  # -> (B,)
    return -10 * (x - clean).square().flatten(1).mean(1).log10()


def denoised(noisy: Tensor, logs: Tensor) -> Tensor:
    parts = zip(noisy.split(64), logs.exp()[:, None, None, None].split(64), strict=True)
    with torch.no_grad():
        energies = (bl.LeastSquares(y) + weight * bl.TotalVariation() for y, weight in parts)
        return torch.cat([bl.argmin(energy, tol=TOL) for energy in energies])


def best(clean: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
    """The logarithm of each image's best weight, by golden section: all images are one batch."""
    golden = (5**0.5 - 1) / 2
    low, high = (3 * sigma).log() - 3.5, (3 * sigma).log()
    left, right = high - golden * (high - low), low + golden * (high - low)
    at_left, at_right = (psnr(denoised(noisy, logs), clean) for logs in (left, right))
    for _ in range(11):  # to 3.5 * 0.618^12 = 0.01
        lower = at_left > at_right
        low, high = torch.where(lower, low, left), torch.where(lower, right, high)
        new = torch.where(lower, high - golden * (high - low), low + golden * (high - low))
        at_new = psnr(denoised(noisy, new), clean)
        left, right = torch.where(lower, new, right), torch.where(lower, left, new)
        at_left, at_right = (
            torch.where(lower, at_new, at_right),
            torch.where(lower, at_left, at_new),
        )
    return torch.where(at_left > at_right, left, right)


def regression(seen: Tensor, target: Tensor, seed: int) -> Predictor:
    """Learned from the best weights alone: no solver."""
    torch.manual_seed(seed)
    predictor = Predictor(seen, target)
    optimizer = torch.optim.AdamW(predictor.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, FITS)
    for _ in range(FITS):
        rows = torch.randint(0, len(seen), (ROWS,))
        optimizer.zero_grad()
        (predictor.by(seen[rows]) - target[rows]).square().mean().backward()
        optimizer.step()
        schedule.step()
    return predictor


def end_to_end(predictor: Predictor, clean: Tensor, seed: int) -> Predictor:
    """From there down the gradient of the PSNR, through the solver, new noise at each step."""
    model = PredictedTVDenoise(copy.deepcopy(predictor), tol=TOL, diff=bl.FlatZones())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1e-3, STEPS, pct_start=20 / STEPS, cycle_momentum=False
    )
    generator = torch.Generator().manual_seed(seed)
    for _ in range(STEPS):
        some = clean[torch.randint(0, len(clean), (BATCH,), generator=generator)]
        noisy, _ = with_noise(some, generator)
        optimizer.zero_grad()
        (-psnr(model(noisy), some).mean()).backward()
        optimizer.step()
        schedule.step()
    return model.predictor  # type: ignore[return-value]


def line(x: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    """The affine function of one number that fits best."""
    slope, offset = np.polyfit(x.numpy(), target.numpy(), 1)
    return lambda x: float(offset) + float(slope) * x


class Drawn(NamedTuple):
    """Photographs under noise, and what is best for each."""

    clean: Tensor
    noisy: Tensor
    sigma: Tensor
    oracle: Tensor

    @staticmethod
    def of(clean: Tensor, seed: int) -> Drawn:
        noisy, sigma = with_noise(clean, torch.Generator().manual_seed(seed))
        return Drawn(clean, noisy, sigma, best(clean, noisy, sigma))

    def psnr(self, logs: Tensor) -> Tensor:
        return psnr(denoised(self.noisy, logs), self.clean)


Rule = Callable[[Drawn], Tensor]


def learned(clean: Tensor, seed: int) -> tuple[dict[str, Rule], dict[str, float]]:
    """The ways to a weight's logarithm, and the seconds that they took."""
    start = time.process_time()
    first = Drawn.of(clean, 10 * seed)
    seen = features(first.noisy)
    regressed = regression(seen, first.oracle, seed)
    spent = {"regression": time.process_time() - start}
    through = end_to_end(regressed, clean, seed)
    spent["end to end"] = time.process_time() - start
    start = time.process_time() - spent["regression"]
    more = [first, *(Drawn.of(clean, 10 * seed + k) for k in range(1, DRAWS))]
    all_seen = torch.cat([seen, *(features(drawn.noisy) for drawn in more[1:])])
    longer = regression(all_seen, torch.cat([drawn.oracle for drawn in more]), seed)
    spent[LONGER] = time.process_time() - start
    known = line(first.sigma.log(), first.oracle)
    estimated = line(seen[:, 0], first.oracle)
    rules: dict[str, Rule] = {
        "best of each image": lambda drawn: drawn.oracle,
        "end to end": lambda drawn: through(drawn.noisy),
        "regression": lambda drawn: regressed(drawn.noisy),
        LONGER: lambda drawn: longer(drawn.noisy),
        "known noise": lambda drawn: known(drawn.sigma.log()),
        "estimated noise": lambda drawn: estimated(sizes(drawn.noisy)[:, 0]),
        "one for all": lambda drawn: first.oracle.mean().expand_as(drawn.oracle),
    }
    return rules, spent


@torch.no_grad()
def judged(runs: list[dict[str, Rule]], drawn: list[Drawn]) -> dict[str, dict]:
    """By the rule's name: its figures over all the seeds."""
    found = {}
    for name in runs[0]:
        logs = torch.stack([rules[name](d) for rules, d in zip(runs, drawn, strict=True)])
        values = torch.stack([d.psnr(row) for row, d in zip(logs, drawn, strict=True)])
        found[name] = (logs, values)
    oracle, top = found["best of each image"]
    rows = {}
    for name, (logs, values) in found.items():
        behind = top - values
        gains = (found["end to end"][1] - values).mean(0)  # of an image
        rows[name] = {
            "PSNR": float(values.mean()), "behind": float(behind.mean()),
            "median": float(behind.median()), "gain": float(gains.mean()),
            "error": float(gains.std() / len(gains) ** 0.5),
            "log weight": float((logs - oracle).square().mean().sqrt()),
            "weights": logs[0].exp().tolist(),
        }  # fmt: skip
    return rows


def main() -> None:
    torch.set_num_threads(1)
    photos, test = photographs("bsd400_180", 0), photographs("bsd68", 1)
    aside = torch.arange(len(photos)) % HELD_OUT == 0
    runs, spent = [], []
    for seed in range(1, SEEDS + 1):
        rules, seconds = learned(photos[~aside], seed)
        runs.append(rules)
        spent.append(seconds)
        print(f"seed {seed}: {seconds}", flush=True)
    tests = [Drawn.of(test, 100 + k) for k in range(SEEDS)]
    rows = judged(runs, tests)
    held_out = judged(runs, [Drawn.of(photos[aside], 200 + k) for k in range(SEEDS)])
    for name, row in rows.items():
        row["weight"] = name
        for figure in ("behind", "gain", "error"):
            row[f"held out: {figure}"] = held_out[name][figure]
        row["seconds"] = np.mean([s[name] for s in spent]).item() if name in spent[0] else ""
    rows["best of each image"]["sigma"] = tests[0].sigma.tolist()
    shown = [
        "weight", "PSNR", "behind", "median", "gain", "error", "log weight", "held out: behind",
        "held out: gain", "held out: error", "seconds",
    ]  # fmt: skip
    notes = NOTES.format(SEEDS, DRAWS)
    title = "The weight of total variation, predicted"
    store("predicted_weight", title, list(rows.values()), shown, notes)


if __name__ == "__main__":
    main()
