"""A generator of a ring of eight Gaussians, against a discriminator that is a lower level.

python benchmarks/gan_ring.py             results in benchmarks/results/gan_ring.md

Real points lie around eight places of the unit circle, standard deviation 0.05; the generator is a
network 8-64-64-2. The discriminator is a logistic regression of 128 random cosine features,

    phi(theta) = argmin over phi of mean log(1 + exp(-label <phi, features>)) + ridge / 2 |phi|^2,

and the generator ascends, by Adam, on the first part of what it reaches. Compared are

    simultaneous   one step of each, phi held constant for the generator
    unrolled       phi after 10 steps from the last one, differentiated through them
    implicit       phi solved for, differentiated by the implicit function theorem

in as many steps of the generator. A mode is found if it has at least a quarter of its share of the
points within three standard deviations; good: the part of all points that lie so near to one.
"""

import math
import time

import torch
from measure import store
from torch import Tensor, nn

import bilevel as bl

MODES, SPREAD, BATCH, FEATURES, RIDGE, UPDATES = 8, 0.05, 256, 128, 1e-3, 600
torch.set_default_dtype(torch.float64)
ANGLES = torch.arange(MODES) * 2 * math.pi / MODES
CENTRES = torch.stack([ANGLES.cos(), ANGLES.sin()], 1)
LABELS = torch.cat([torch.ones(1, BATCH), -torch.ones(1, BATCH)], 1)


class Game:
    """The lower level, and three ways to answer the generator."""

    def __init__(self, way: str) -> None:
        scales = torch.tensor([1.0, 2.0, 4.0, 8.0]).repeat_interleave(FEATURES // 4)
        self.frequencies = scales * torch.randn(2, FEATURES)
        self.phases = 2 * math.pi * torch.rand(FEATURES)
        self.phi = torch.zeros(1, FEATURES)
        self.answer = getattr(self, way)

    def fit(self, real: Tensor, fake: Tensor) -> bl.Term:
        points = torch.cat([real, fake])
        features = 2**0.5 * (points @ self.frequencies + self.phases).cos()
        return bl.Logistic(LABELS, weight=1 / (2 * BATCH)) @ bl.Matrix(features)

    def simultaneous(self, energy: bl.Problem) -> Tensor:
        before = self.phi
        with torch.no_grad():
            self.phi = bl.unrolled(bl.GradientDescent(), 1)(energy, before)
        return before

    def unrolled(self, energy: bl.Problem) -> Tensor:
        phi = bl.unrolled(bl.GradientDescent(), 10)(energy, self.phi)
        self.phi = phi.detach()
        return phi

    def implicit(self, energy: bl.Problem) -> Tensor:
        phi = bl.argmin(energy, x0=self.phi, solver=bl.Newton(), diff=bl.Implicit(), tol=1e-6)
        self.phi = phi.detach()
        return phi


def real(count: int) -> Tensor:
    return CENTRES[torch.randint(MODES, (count,))] + SPREAD * torch.randn(count, 2)


def trained(way: str, seed: int) -> tuple[Tensor, float]:
    """2000 points of the generator, and seconds of the processor."""
    torch.manual_seed(seed)
    generator = nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2)
    )
    game, start = Game(way), time.process_time()
    optimizer = torch.optim.Adam(generator.parameters(), lr=5e-3, betas=(0.5, 0.99))
    for _ in range(UPDATES):
        fit = game.fit(real(BATCH), generator(torch.randn(BATCH, 8)))
        loss = -fit.value(game.answer(fit + bl.LeastSquares(weight=RIDGE))).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    spent = time.process_time() - start
    with torch.no_grad():
        return generator(torch.randn(2000, 8)), spent


def judged(points: Tensor) -> dict:
    distance, mode = torch.cdist(points, CENTRES).min(1)
    near = distance < 3 * SPREAD
    counts = torch.bincount(mode[near], minlength=MODES)
    found = int((counts >= len(points) / MODES / 4).sum())
    return {"modes": found, "good": float(near.float().mean())}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for way in ("simultaneous", "unrolled", "implicit"):
        for seed in range(5):
            points, spent = trained(way, seed)
            row = {"discriminator": way, "seed": seed, **judged(points), "seconds": spent}
            print(row, flush=True)
            rows.append(
                {**row, "points": [[round(c, 3) for c in p] for p in points[:200].tolist()]}
            )
    notes = f"{UPDATES} steps of the generator. Seconds of the processor, one thread, in all."
    store("gan_ring", "A ring of eight Gaussians", rows,
          ["discriminator", "seed", "modes", "good", "seconds"], notes)  # fmt: skip


if __name__ == "__main__":
    main()
