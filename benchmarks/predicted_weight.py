"""A network that predicts the weight of total variation from the noisy image.

python benchmarks/predicted_weight.py     results in benchmarks/results/predicted_weight.md

Noise of 5 to 50 of 255, drawn at random, unknown to the network. It is learned twice: from the best
weight of each image, by regression, and from there through the solver, by the error of the result.
Judged on other photographs, beside the best weight of each of them, which no method can know.
"""

import copy
import time
from collections.abc import Callable

import numpy as np
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

import bilevel as bl
from bilevel.layers import PredictedTVDenoise

LOW, HIGH = 5 / 255, 50 / 255
SIZE, BATCH, STEPS = 180, 16, 300  # pixels, samples of a step, steps through the solver
SCALES = (1, 2, 4, 8)
TOL = 1e-4
NOTES = """\
Images of 180 x 180 pixels: the 400 photographs of bsd400_180 to learn from, a crop from each of
bsd68 to judge. PSNR: the mean over the images. behind: what the best weight of each image would
add, mean and median. log weight: the root mean square distance from that weight's logarithm. known
noise: weight = exp(a + b log sigma), fitted to the best weights of the images learned from, with
the true sigma; estimated noise: with the median of the mixed differences for it. End to end draws
new noise at each step, which regression cannot: it has the best weights of one. What the network
sees was chosen after a look at crops of bsd68 under other noise. seconds: of the processor, to
learn; all the best weights to learn from took {} more."""


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


class Predictor(nn.Module):
    """(B, 1, H, W) -> (B,): the logarithm of a weight, an affine function of the `sizes` plus a
    small network of them, which begins at 0."""

    def __init__(self, noisy: Tensor, target: Tensor, width: int = 32) -> None:
        """The affine function: least squares on images whose best weights are known."""
        super().__init__()
        seen = sizes(noisy)
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
        seen = (sizes(noisy) - self.centre) / self.spread
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
    for _ in range(12):  # to 3.5 * 0.618^12 = 0.01
        span = golden * (high - low)
        left, right = high - span, low + span
        keeps_left = psnr(denoised(noisy, left), clean) > psnr(denoised(noisy, right), clean)
        low, high = torch.where(keeps_left, low, left), torch.where(keeps_left, right, high)
    return (low + high) / 2


def regression(noisy: Tensor, target: Tensor) -> Predictor:
    """Learned from the best weights alone: no solver."""
    torch.manual_seed(0)
    predictor = Predictor(noisy, target)
    optimizer = torch.optim.AdamW(predictor.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 500)
    for _ in range(500):
        rows = torch.randint(0, len(noisy), (32,))
        optimizer.zero_grad()
        (predictor(noisy[rows]) - target[rows]).square().mean().backward()
        optimizer.step()
        schedule.step()
    return predictor


def end_to_end(predictor: Predictor, clean: Tensor) -> Predictor:
    """From there down the gradient of the PSNR, through the solver, new noise at each step."""
    model = PredictedTVDenoise(copy.deepcopy(predictor), tol=1e-3, diff=bl.FlatZones())
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    generator = torch.Generator().manual_seed(2)
    for step in range(STEPS):
        some = clean[torch.randint(0, len(clean), (BATCH,), generator=generator)]
        noisy, _ = with_noise(some, generator)
        optimizer.zero_grad()
        loss = -psnr(model(noisy), some).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: PSNR {-float(loss.detach()):.2f}", flush=True)
    return model.predictor  # type: ignore[return-value]


def line(x: Tensor, target: Tensor) -> Callable[[Tensor], Tensor]:
    """The affine function of one number that fits best."""
    slope, offset = np.polyfit(x.numpy(), target.numpy(), 1)
    return lambda x: float(offset) + float(slope) * x


def judged(name: str, logs: Tensor, oracle: Tensor, clean: Tensor, noisy: Tensor) -> dict:
    gained = psnr(denoised(noisy, logs), clean)
    behind = psnr(denoised(noisy, oracle), clean) - gained
    off = (logs - oracle).square().mean().sqrt()
    return {
        "weight": name, "PSNR": float(gained.mean()), "behind": float(behind.mean()),
        "median": float(behind.median()), "log weight": float(off),
        "weights": logs.exp().tolist(),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    clean, test_clean = photographs("bsd400_180", 0), photographs("bsd68", 1)
    noisy, sigma = with_noise(clean, torch.Generator().manual_seed(0))
    test_noisy, test_sigma = with_noise(test_clean, torch.Generator().manual_seed(1))
    times = [time.process_time()]
    targets = best(clean, noisy, sigma)
    times.append(time.process_time())
    print(f"best weights found: {times[1] - times[0]:.0f} s", flush=True)
    regressed = regression(noisy, targets)
    times.append(time.process_time())
    learned = end_to_end(regressed, clean)
    times.append(time.process_time())
    spent = dict(zip(("best", "regression", "end to end"), np.diff(times).tolist(), strict=True))
    oracle = best(test_clean, test_noisy, test_sigma)
    known = line(sigma.log(), targets)
    estimated = line(sizes(noisy)[:, 0], targets)
    with torch.no_grad():
        logs = {
            "best of each image": oracle,
            "end to end": learned(test_noisy),
            "regression": regressed(test_noisy),
            "known noise": known(test_sigma.log()),
            "estimated noise": estimated(sizes(test_noisy)[:, 0]),
            "one for all": targets.mean().expand_as(oracle),
        }
    rows = [judged(name, values, oracle, test_clean, test_noisy) for name, values in logs.items()]
    for row in rows:
        row["seconds"] = spent.get(row["weight"], "")
    rows[0]["sigma"] = test_sigma.tolist()
    shown = ["weight", "PSNR", "behind", "median", "log weight", "seconds"]
    notes = NOTES.format(f"{spent['best']:.0f} s")
    store("predicted_weight", "The weight of total variation, predicted", rows, shown, notes)


if __name__ == "__main__":
    main()
