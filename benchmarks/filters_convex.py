"""A convex filter bank, an l1 norm with rounded tips, from the DCT in an hour of one core; on
BSD68 at sigma 25 beside the published convex ones.

python benchmarks/filters_convex.py [SECONDS [EVERY]]        SECONDS: of the processor to learn in,
3400 if not told; EVERY: judged on every EVERY-th image, 1 if not told, twenty seconds each;
results in benchmarks/results/filters_convex.md; needs the shared data

Learned as benchmarks/filters_learn.py does, which tells how, but in larger steps and with filters
of unit length: else they grow, the tips beside them become sharp, and the gradient rough. BSD68 is
seen once, at the end. The numbers are kept in runs/filters_convex_SECONDS.pt: if they are there,
they are judged, not learned anew.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from filters_bsd68 import SEED
from filters_learn import Training, learn
from measure import DATA, former, store
from tv_bsd68 import noisy, photographs, psnr

from bilevel.layers import FilterDenoise, HuberPotential

LEVEL, SIZE = 25.0, 9
DELTA = 0.002  # of the tips at first, learned: half a gray value of 255
TOL = 1e-3  # when judged; while learning 1e-2
COLUMNS = ["images", "PSNR", "solved to", "learned in s", "parameters", "delta, median of 255"]
NOTES = (
    "PSNR in dB, mean over evenly chosen images of BSD68, noise 25 of 255 not clipped, of seed "
    f"{SEED}, as in filters_bsd68.md. One bank: 80 filters 9 x 9, penalties Huber's with learned "
    "delta, so convex; from the DCT, seconds of one core. Others, all 68 images: a published "
    "learned l1 with 48 filters 28.04 (recalled), CRR-NN 28.10 (its own result files)."
)


def bank() -> FilterDenoise:
    potential = HuberPotential(SIZE**2 - 1, delta=DELTA)
    weight = 0.2 / SIZE**2  # as much for a pixel as filters of any size
    return FilterDenoise(weight, size=SIZE, potential=potential, tol=TOL, on_fail="warn")


@torch.no_grad()
def of_unit_length(denoiser: FilterDenoise) -> None:
    """Filters of length 1; what they were longer goes to their shares."""
    length = denoiser.mix.norm(dim=1)
    denoiser.mix /= length[:, None]
    denoiser.log_share += length.log()


def learned(seconds: float) -> dict:
    """The numbers, and the seconds that they took."""
    path = Path(f"runs/filters_convex_{seconds:g}.pt")
    if not path.exists():
        denoiser = bank()
        training = Training(
            filters=1.2e-2, potential=1e-3, others=3e-2, products=20, project=of_unit_length
        )
        learn(denoiser, LEVEL, seconds, training)
        path.parent.mkdir(exist_ok=True)
        torch.save({"seconds": seconds, "state": denoiser.state_dict()}, path)
    return torch.load(path)


@torch.no_grad()
def judged(denoiser: FilterDenoise, every: int) -> list[float]:
    """PSNR of every `every`-th image."""
    clean = photographs(sorted((DATA / "bsd68").glob("*.png")))
    pairs = list(zip(clean, noisy(clean, SEED, LEVEL / 255), strict=True))[::every]
    return [float(psnr(denoiser(y[None]), c[None])) for c, y in pairs]


def main(seconds: float = 3400.0, every: int = 1) -> None:
    if not (DATA / "bsd68").exists():
        raise SystemExit(f"{DATA / 'bsd68'} is absent: this benchmark needs the photographs.")
    kept, denoiser = learned(seconds), bank()
    denoiser.load_state_dict(kept["state"])
    found = judged(denoiser, every)
    row = {
        "images": len(found),
        "PSNR": np.mean(found).item(),
        "solved to": TOL,
        "learned in s": kept["seconds"],
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "delta, median of 255": 255 * denoiser.potential.log_delta.exp().median().item(),
    }
    others = [r for r in former("filters_convex") if _place(r) != _place(row)]
    rows = sorted([*others, row], key=_place)
    store("filters_convex", "A convex filter bank on BSD68", rows, COLUMNS, NOTES)


def _place(row: dict) -> tuple[float, float]:
    return row["learned in s"], -row["solved to"]


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]), *map(int, sys.argv[2:3]))
