"""When to stop: the flow of a learned energy, with its stopping time learned, on photographs.

python benchmarks/stopping_time.py        results in benchmarks/results/stopping_time.md; needs the
                                          shared data

x(T) of dx/dt = -grad E(x), x(0) the noisy image (standard deviation 25.5 of 255), ten semi-implicit
steps; E(x) = weight / 2 |x - y|^2 + sum_i w_i sum log(1 + (k_i * x)^2 / s_i^2), eight filters 5 x 5
without a mean. Filters, w, s, weight and T are learned together, on patches of bsd400_180; test
images are from the part of it that no training saw. Compared: T of a search, 10 T with steps as
short, and the same energy solved to optimality, with its weight re-tuned by a search.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from measure import DATA, store
from PIL import Image
from torch import Tensor, nn

import bilevel as bl
from bilevel.layers import GradientFlow

NOISE, STEPS, SIZE, BATCH, ITERATIONS = 0.1, 10, 64, 8, 600
FACTORS = (0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.4, 2.0, 4.0, 10.0)


@dataclass(frozen=True, eq=False)
class StudentT(bl.Smooth):
    """sum_i w_i sum log(1 + x_i^2 / s_i^2) over the channels i."""

    weight: Tensor  # (1, C, 1, 1)
    scale: Tensor

    def value(self, x: Tensor) -> Tensor:
        return (self.weight * (1 + (x / self.scale).square()).log()).flatten(1).sum(1)

    def grad(self, x: Tensor) -> Tensor:
        return 2 * self.weight * x / (self.scale.square() + x.square())

    def lipschitz(self, x: Tensor) -> Tensor:
        return (2 * self.weight / self.scale.square()).detach().amax()


class Denoiser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kernel = nn.Parameter(0.1 * torch.randn(8, 1, 5, 5, generator=generator))
        self.log_weight = nn.Parameter(torch.full((1, 8, 1, 1), -4.0))
        self.log_scale = nn.Parameter(torch.full((1, 8, 1, 1), -3.0))
        self.log_data = nn.Parameter(torch.tensor(-1.0))
        self.flow = GradientFlow(1.0, STEPS, implicit=True)

    def energy(self, noisy: Tensor, data: Tensor | None = None) -> bl.Problem:
        kernel = self.kernel - self.kernel.mean((2, 3), keepdim=True)
        prior = StudentT(self.log_weight.exp(), self.log_scale.exp())
        data = self.log_data.exp() if data is None else data
        return data * bl.LeastSquares(noisy) + prior @ bl.Convolution(kernel, padding=2)

    def forward(self, noisy: Tensor) -> Tensor:
        return self.flow(self.energy(noisy), noisy)


def photographs(start: int, stop: int) -> Tensor:  # (B, 1, 180, 180)
    names = sorted((DATA / "bsd400_180").glob("test_*.png"))[start:stop]
    if not names:
        raise SystemExit(f"{DATA}/bsd400_180 is absent: this benchmark needs the photographs.")
    return torch.stack([torch.from_numpy(np.array(Image.open(n))) for n in names])[:, None] / 255


def psnr(x: Tensor, clean: Tensor) -> float:
    return float(-10 * torch.log10((x - clean).square().flatten(1).mean(1)).mean())


def updates(
    net: nn.Module, images: Tensor, optimizer: torch.optim.Optimizer, count: int, size: int
) -> Iterator[Tensor]:
    """The loss of each of `count` updates, on noisy patches, size x size."""
    generator = torch.Generator().manual_seed(1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, count)
    for _ in range(count):
        which = torch.randint(len(images), (BATCH,), generator=generator)
        row, column = torch.randint(180 - size, (2,), generator=generator).tolist()
        clean = images[which, :, row : row + size, column : column + size]
        noisy = clean + NOISE * torch.randn(clean.shape, generator=generator)
        loss = (net(noisy) - clean).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        yield loss.detach()


def train(model: Denoiser, images: Tensor) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for k, loss in enumerate(updates(model, images, optimizer, ITERATIONS, SIZE)):
        if k % 50 == 0:
            T = float(model.flow.stop.detach())
            print(k, float(-10 * loss.log10()), "T", T, flush=True)


@torch.no_grad()
def stopped(model: Denoiser, noisy: Tensor, factor: float) -> Tensor:
    """x(factor T), with steps no longer than those of the training."""
    T, steps = float(model.flow.stop), max(STEPS, round(STEPS * factor))
    return GradientFlow(factor * T, steps, implicit=True)(model.energy(noisy), noisy)


def solved(model: Denoiser, noisy: Tensor, data: float) -> Tensor:
    with torch.no_grad():
        energy = model.energy(noisy, torch.tensor(data))
        return bl.solve(energy, x0=noisy, tol=1e-4, max_iter=2000, on_fail="warn").x


def main() -> None:
    torch.set_num_threads(1)
    model, start = Denoiser(), time.process_time()
    train(model, photographs(0, 40))
    seconds = time.process_time() - start
    clean = photographs(360, 372)
    noisy = clean + NOISE * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))
    rows = [{"what": "noisy", "PSNR": psnr(noisy, clean)}]
    for factor in FACTORS:
        rows.append({"what": f"{factor:g} T", "factor": factor})
        rows[-1]["PSNR"] = psnr(stopped(model, noisy, factor), clean)
        print(rows[-1], flush=True)
    own = float(model.log_data.detach().exp())
    for factor in (1, 1.4, 2, 2.8, 4, 8):
        name = f"the minimiser, weight of the data times {factor}"
        rows.append({"what": name, "PSNR": psnr(solved(model, noisy, factor * own), clean)})
        print(rows[-1], flush=True)
    rows.append({"what": "T", "value": float(model.flow.stop.detach())})
    rows.append({"what": "weight of the data", "value": own})
    rows.append({"what": "seconds of training", "value": seconds})
    with torch.no_grad():
        kernel = model.kernel - model.kernel.mean((2, 3), keepdim=True)
        rows.append({"what": "filters", "filters": kernel[:, 0].tolist()})
    notes = "PSNR of 12 images, mean, dB. Seconds of the processor, one thread."
    columns = ["what", "PSNR", "value"]
    store("stopping_time", "When to stop", rows, columns, notes)


if __name__ == "__main__":
    main()
