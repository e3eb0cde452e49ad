"""The filters that come with the package on BSD68, beside total variation: same noise for both.

python benchmarks/filters_bsd68.py        results in benchmarks/results/filters_bsd68.md; needs the
shared data; about ten minutes
"""

import json

import numpy as np
import torch
from measure import DATA, RESULTS, store
from tv_bsd68 import SIGMA, noisy, photographs, psnr

from bilevel.tasks.shipped import denoisers

SEEDS = (11,)  # 12 and 13 move the mean of TV by less than 0.01 dB
LEVEL = 25.0


@torch.no_grad()
def main() -> None:
    names = sorted((DATA / "bsd68").glob("*.png"))
    if not names:
        raise SystemExit(f"{DATA / 'bsd68'} is absent: this benchmark needs the photographs.")
    model, clean = denoisers()[LEVEL], photographs(names)
    assert abs(SIGMA - LEVEL / 255) < 1e-12
    count = sum(p.numel() for p in model.parameters())
    rows = []
    for seed in SEEDS:
        given = noisy(clean, seed)
        values = [float(psnr(model(y[None]), c[None])) for y, c in zip(given, clean, strict=True)]
        rows.append({"what": f"filters, {count} parameters, noise seed {seed}",
                     "PSNR": float(np.mean(values))})  # fmt: skip
    tv = json.loads((RESULTS / "tv_bsd68.json").read_text())["rows"]
    rows += [
        {"what": "filters, mean of the seeds", "PSNR": float(np.mean([r["PSNR"] for r in rows]))},
        *(
            {"what": f"TV, learned weight, {r['what'].split(', ')[-1]}", "PSNR": r["PSNR"]}
            for r in tv
            if r["what"] == "BSD68, mean of the seeds"
        ),
        {"what": "published: learned l1, 48 filters 7 x 7 (recalled, not re-read)", "PSNR": 28.04},
        {"what": "published: CRR-NN, convex (its own result files)", "PSNR": 28.10},
    ]
    notes = "Sigma 25/255, noise not clipped, float32, the same noise for both. BSD68 never seen."
    store("filters_bsd68", "Learned filters on BSD68", rows, ["what", "PSNR"], notes)


if __name__ == "__main__":
    main()
