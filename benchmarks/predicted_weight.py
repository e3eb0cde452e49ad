"""A network that predicts the weight of total variation from the noisy image.

python benchmarks/predicted_weight.py     results in benchmarks/results/predicted_weight.md

Noise of 5 to 50 of 255, drawn at random, unknown to the network. It is learned twice: from the best
weight of each image, by regression, and from there through the solver, by the error of the result.
Judged on other photographs, beside the best weight of each of them, which no method can know.
"""

import copy
import time

import numpy as np
import torch
from measure import DATA, store
from skimage.io import imread
from torch import Tensor, nn

import bilevel as bl
from bilevel.layers import PredictedTVDenoise

LOW, HIGH = 5 / 255, 50 / 255
SIZE, BATCH, STEPS = 64, 16, 400  # pixels, samples of a step, steps through the solver
TOL = 1e-4
NOTES = """\
Crops of 64 x 64 pixels: one from each of bsd400_180's first 240 photographs, with two draws of the
noise, to learn from; one from each of bsd68 to judge. PSNR: the mean over the images. behind: what
the best weight of each image would add, mean. log weight: the root mean square distance from that
weight's logarithm. known noise: weight = exp(a + b log sigma), fitted to the best weights of the
images learned from, with the true sigma. seconds: of the processor, to learn."""


class Predictor(nn.Module):
    """(B, 1, H, W) -> (B,): the logarithm of a weight, by 3 x 3 filters, their mean sizes, and a
    small network of the logarithms of these."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.filters = nn.Sequential(
            nn.Conv2d(1, width, 3), nn.Softplus(20.0), nn.Conv2d(width, width, 3), nn.Softplus(20.0)
        )
        self.head = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, 1))

    def forward(self, noisy: Tensor) -> Tensor:
        sizes = self.filters(noisy).mean((2, 3))
        return self.head(sizes.log())[:, 0]


def crops(folder: str, count: int | None, each: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(clean, noisy, sigma): `each` crops, or draws of the noise, of the first photographs."""
    names = sorted((DATA / folder).glob("*.png"))[:count]
    if not names:
        raise SystemExit(f"{DATA / folder} is absent: this benchmark needs the photographs.")
    rng = np.random.default_rng(seed)
    clean = []
    for name in names:
        photo = imread(name).astype(np.float32) / 255
        for _ in range(each):
            top, left = (rng.integers(0, n - SIZE) for n in photo.shape)
            clean.append(photo[top : top + SIZE, left : left + SIZE])
    images = torch.from_numpy(np.stack(clean)[:, None])
    sigma = torch.from_numpy(np.exp(rng.uniform(np.log(LOW), np.log(HIGH), len(images)))).float()
    noise = torch.from_numpy(rng.standard_normal(images.shape)).float()
    return images, images + sigma[:, None, None, None] * noise, sigma


def psnr(x: Tensor, clean: Tensor) -> Tensor:  # -> (B,)
    return -10 * (x - clean).square().flatten(1).mean(1).log10()


def denoised(noisy: Tensor, logs: Tensor) -> Tensor:
    weight = logs.exp()[:, None, None, None]
    with torch.no_grad():
        return bl.argmin(bl.LeastSquares(noisy) + weight * bl.TotalVariation(), tol=TOL)


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
    predictor = Predictor()
    with torch.no_grad():
        predictor.head[-1].bias.fill_(float(target.mean()))
    optimizer = torch.optim.Adam(predictor.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 1500)
    for _ in range(1500):
        rows = torch.randint(0, len(noisy), (32,))
        optimizer.zero_grad()
        (predictor(noisy[rows]) - target[rows]).square().mean().backward()
        optimizer.step()
        schedule.step()
    return predictor


def end_to_end(predictor: Predictor, clean: Tensor, noisy: Tensor) -> Predictor:
    """From there down the gradient of the PSNR, through the solver."""
    model = PredictedTVDenoise(copy.deepcopy(predictor), tol=1e-3, diff=bl.FlatZones())
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for step in range(STEPS):
        rows = torch.randint(0, len(noisy), (BATCH,))
        optimizer.zero_grad()
        loss = -psnr(model(noisy[rows]), clean[rows]).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}: PSNR {-float(loss.detach()):.2f}", flush=True)
    return model.predictor  # type: ignore[return-value]


def judged(name: str, logs: Tensor, oracle: Tensor, clean: Tensor, noisy: Tensor) -> dict:
    gained = psnr(denoised(noisy, logs), clean)
    behind = psnr(denoised(noisy, oracle), clean) - gained
    off = (logs - oracle).square().mean().sqrt()
    return {
        "weight": name, "PSNR": float(gained.mean()), "behind": float(behind.mean()),
        "log weight": float(off), "weights": logs.exp().tolist(),
    }  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    clean, noisy, sigma = crops("bsd400_180", 240, 2, 0)
    test_clean, test_noisy, test_sigma = crops("bsd68", None, 1, 1)
    targets, oracle = best(clean, noisy, sigma), best(test_clean, test_noisy, test_sigma)
    print("best weights found", flush=True)
    columns = torch.stack([torch.ones_like(sigma), sigma.log()], 1)
    line = torch.linalg.lstsq(columns, targets).solution
    start = time.process_time()
    regressed = regression(noisy, targets)
    middle = time.process_time()
    learned = end_to_end(regressed, clean, noisy)
    spent = {"regression": middle - start, "end to end": time.process_time() - middle}
    with torch.no_grad():
        logs = {
            "best of each image": oracle,
            "end to end": learned(test_noisy),
            "regression": regressed(test_noisy),
            "known noise": line[0] + line[1] * test_sigma.log(),
            "one for all": targets.mean().expand_as(oracle),
        }
    rows = [judged(name, values, oracle, test_clean, test_noisy) for name, values in logs.items()]
    for row in rows:
        row["seconds"] = spent.get(row["weight"], "")
    rows[0]["sigma"] = test_sigma.tolist()
    shown = ["weight", "PSNR", "behind", "log weight", "seconds"]
    store("predicted_weight", "The weight of total variation, predicted", rows, shown, NOTES)


if __name__ == "__main__":
    main()
