"""The filters that come with the package on BSD68, beside total variation: same noise for both.

python benchmarks/filters_bsd68.py [EVERY]   on every EVERY-th image, 7 if not told; one takes a
quarter of a minute; results in benchmarks/results/filters_bsd68.md; needs the shared data
"""

import csv
import sys

import numpy as np
import torch
from measure import DATA, RESULTS, store
from tv_bsd68 import SIGMA, noisy, photographs, psnr

from bilevel.tasks.shipped import denoisers

SEED, LEVEL = 11, 25.0


@torch.no_grad()
def main(every: int = 7) -> None:
    names = sorted((DATA / "bsd68").glob("*.png"))
    if not names:
        raise SystemExit(f"{DATA / 'bsd68'} is absent: this benchmark needs the photographs.")
    model, clean = denoisers()[LEVEL], photographs(names)
    assert abs(SIGMA - LEVEL / 255) < 1e-12
    pairs = list(zip(noisy(clean, SEED), clean, strict=True))[::every]
    filters = [float(psnr(model(y[None]), c[None])) for y, c in pairs]
    with (RESULTS / "tv_bsd68_images.csv").open(newline="") as file:
        tv = [float(row[f"seed {SEED}"]) for row in csv.DictReader(file)][::every]
    count = sum(p.numel() for p in model.parameters())
    rows = [
        {"what": f"filters, {count} parameters", "images": len(pairs), "PSNR": np.mean(filters)},
        {"what": "TV, learned weight", "images": len(pairs), "PSNR": np.mean(tv)},
        {"what": "least gain of an image", "PSNR": np.min(np.subtract(filters, tv))},
        {"what": "TV, usually quoted (recalled)", "images": 68, "PSNR": 27.48},
        {"what": "learned l1, 48 filters, published (recalled)", "images": 68, "PSNR": 28.04},
        {"what": "CRR-NN, convex, its own result files", "images": 68, "PSNR": 28.10},
        {"what": "WCRR-NN, weakly convex, its own result files", "images": 68, "PSNR": 28.68},
    ]
    rows = [{**row, "PSNR": float(row["PSNR"])} for row in rows]
    which = "All images" if every == 1 else f"Every {every}th image"
    notes = (
        f"Sigma 25/255, noise not clipped, seed {SEED}, float32, the same noise for both. "
        f"{which} of BSD68: compare figures of the same images only. BSD68 was never seen."
    )
    store("filters_bsd68", "Learned filters on BSD68", rows, ["what", "images", "PSNR"], notes)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
