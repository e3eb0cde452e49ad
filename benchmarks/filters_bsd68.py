"""The filters that come with the package on BSD68, beside total variation: same noise for all.

python benchmarks/filters_bsd68.py [EVERY [LEVEL [SEEDS]]]   on every EVERY-th image, 4 if not told:
half a minute of the processor each and level; LEVEL: of the noise, of 255, all that ship if not
told, another is denoised as by `bilevel denoise`, by the filters of the nearest; SEEDS: of the
noise, how many, 1 if not told. Rows of other levels or numbers of images stay; results in
benchmarks/results/filters_bsd68.md; needs the shared data
"""

import sys

import numpy as np
import torch
from measure import DATA, former, store
from torch import Tensor
from tv_bsd68 import CHUNK, batches, denoised, learned_weight, noisy, photographs, psnr

from bilevel.tasks.shipped import denoisers, nearest

SEED = 11  # the first
SCALED = 25.0  # the level whose filters are tried at the others, too
COLUMNS = [
    "sigma", "images", "seeds", "filters", "spread", "those of 25, scaled", "TV", "gain",
    "least gain",
]  # fmt: skip
NOTES = (
    "PSNR in dB, mean over the images: all 68 of BSD68 or evenly chosen ones (compare figures of "
    f"the same images only), noise not clipped, of seed {SEED} and those after it, float32, the "
    "same for all. Spread: from the least to the largest mean of a seed, 0 of one. "
    "Filters: 2449 parameters, learned at this sigma, those of 15 at sigma 5; scaled: those of "
    "sigma 25, on the image scaled so that its noise is theirs, as at sigma 5. TV: its weight "
    "learned at this sigma from 18 or more photographs. Gain: of the filters over TV, and "
    "the least one of an image. BSD68 was never seen. Others at sigma 25, all images: TV, usually "
    "quoted, 27.48, and a published learned l1 with 48 filters 28.04 (both recalled); CRR-NN, "
    "convex, 28.10, and WCRR-NN, weakly convex, 28.68 (their own result files); at sigma 15 CRR-NN "
    "30.54, WCRR-NN 31.21; at sigma 5 CRR-NN 36.96."
)


def tv_weight(sigma: float) -> float:
    train = photographs(sorted((DATA / "bsd400_180").glob("test_*.png"))[:360:20])
    seen = noisy(train, 1, sigma)
    return learned_weight(batches(train, CHUNK), batches(seen, CHUNK), begin=0.8 * sigma)[0]


@torch.no_grad()
def figures(level: float, every: int, seeds: int, weight: float) -> dict:
    clean = photographs(sorted((DATA / "bsd68").glob("*.png")))
    noises = [noisy(clean, SEED + k, level / 255) for k in range(seeds)]
    pairs = [pair for y in noises for pair in list(zip(clean, y, strict=True))[::every]]

    def each(method) -> list[float]:
        return [float(psnr(method(y[None]), c[None])) for c, y in pairs]

    def scaled(y: Tensor, learned: float) -> Tensor:
        scale = learned / level
        return denoisers()[learned](scale * y) / scale

    learned = nearest(level)
    own, tv = each(lambda y: scaled(y, learned)), each(lambda y: denoised(y, weight))
    of_25 = own if learned == SCALED else each(lambda y: scaled(y, SCALED))
    gains = np.subtract(own, tv)
    return {
        "sigma": level,
        "images": len(pairs) // seeds,
        "seeds": seeds,
        "filters": np.mean(own).item(),
        "spread": np.ptp(np.reshape(own, (seeds, -1)).mean(1)).item(),
        "those of 25, scaled": np.mean(of_25).item(),
        "TV": np.mean(tv).item(),
        "gain": gains.mean().item(),
        "least gain": gains.min().item(),
    }


def main(every: int = 4, level: float | None = None, seeds: int = 1) -> None:
    if not (DATA / "bsd68").exists():
        raise SystemExit(f"{DATA / 'bsd68'} is absent: this benchmark needs the photographs.")
    for sigma in sorted(denoisers()) if level is None else [level]:
        row = figures(sigma, every, seeds, tv_weight(sigma / 255))
        others = [other for other in former("filters_bsd68") if _place(other) != _place(row)]
        rows = sorted([*others, row], key=_place)
        store("filters_bsd68", "Learned filters on BSD68", rows, COLUMNS, NOTES)


def _place(row: dict) -> tuple[float, int]:
    return row["sigma"], row["images"]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(float, sys.argv[2:3]), *map(int, sys.argv[3:4]))
