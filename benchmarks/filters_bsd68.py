"""The filters that come with the package on BSD68, beside total variation: same noise for all.

python benchmarks/filters_bsd68.py [EVERY [LEVEL]]   on every EVERY-th image, 4 if not told: half a
minute of the processor each and level; LEVEL: of the noise, of 255, all that ship if not told, else
the other levels' rows stay; results in benchmarks/results/filters_bsd68.md; needs the shared data
"""

import sys

import numpy as np
import torch
from measure import DATA, former, store
from torch import Tensor
from tv_bsd68 import CHUNK, batches, denoised, learned_weight, noisy, photographs, psnr

from bilevel.tasks.shipped import denoisers

SEED, SCALED = 11, 25.0  # SCALED: the level whose filters are tried at the others, too
COLUMNS = ["sigma", "images", "filters", "those of 25, scaled", "TV", "gain", "least gain"]
NOTES = (
    "PSNR in dB, mean over the images: all 68 of BSD68 or evenly chosen ones (compare figures of "
    f"the same images only), noise not clipped, seed {SEED}, float32, the same noise for all. "
    "Filters: 2449 parameters, learned at this sigma; scaled: those of sigma 25, on the image "
    "scaled so that its noise is theirs. TV: its weight learned at this sigma from 18 or more "
    "photographs. Gain: of the filters over TV, and the least one of an image. BSD68 was never "
    "seen. Others at sigma 25, all images: TV, usually quoted, 27.48, and a published learned l1 "
    "with 48 filters 28.04 (both recalled); CRR-NN, convex, 28.10, and WCRR-NN, weakly convex, "
    "28.68 (their own result files); at sigma 15 CRR-NN 30.54, WCRR-NN 31.21."
)


def tv_weight(sigma: float) -> float:
    train = photographs(sorted((DATA / "bsd400_180").glob("test_*.png"))[:360:20])
    seen = noisy(train, 1, sigma)
    return learned_weight(batches(train, CHUNK), batches(seen, CHUNK), begin=0.8 * sigma)[0]


@torch.no_grad()
def figures(level: float, every: int, weight: float) -> dict:
    clean, known = photographs(sorted((DATA / "bsd68").glob("*.png"))), denoisers()
    pairs = list(zip(clean, noisy(clean, SEED, level / 255), strict=True))[::every]
    scale = SCALED / level

    def each(method) -> list[float]:
        return [float(psnr(method(y[None]), c[None])) for c, y in pairs]

    def scaled(y: Tensor) -> Tensor:
        return known[SCALED](scale * y) / scale

    own, tv = each(known[level]), each(lambda y: denoised(y, weight))
    gains = np.subtract(own, tv)
    return {
        "sigma": level,
        "images": len(pairs),
        "filters": np.mean(own).item(),
        "those of 25, scaled": np.mean(own if scale == 1 else each(scaled)).item(),
        "TV": np.mean(tv).item(),
        "gain": gains.mean().item(),
        "least gain": gains.min().item(),
    }


def main(every: int = 4, *levels: float) -> None:
    if not (DATA / "bsd68").exists():
        raise SystemExit(f"{DATA / 'bsd68'} is absent: this benchmark needs the photographs.")
    for level in levels or sorted(denoisers()):
        row = figures(level, every, tv_weight(level / 255))
        others = [other for other in former("filters_bsd68") if other["sigma"] != level]
        rows = sorted([*others, row], key=lambda one: one["sigma"])
        store("filters_bsd68", "Learned filters on BSD68", rows, COLUMNS, NOTES)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]), *map(float, sys.argv[2:3]))
