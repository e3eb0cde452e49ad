"""How the filters that come with the package were learned, from 360 photographs.

python benchmarks/filters_learn.py OUT [SECONDS [BEGIN]]    OUT: the run folder to make; BEGIN: one
to begin from. Validation: the middle of every other one of the 40 photographs that are left.
"""

import math
import sys
import time
from pathlib import Path

import tomli_w
import torch
from measure import DATA
from tv_bsd68 import SIGMA, photographs, psnr

import bilevel as bl
from bilevel.layers import FilterDenoise
from bilevel.learning import checkpoint
from bilevel.tasks import runs

BATCH, CROP = 8, 44
STEPS = {"mix": 8e-3, "others": 2e-2}  # of Adam at their largest


def model(begin: Path | None) -> FilterDenoise:
    diff = bl.Implicit(bl.CG(tol=2e-2), order=1)
    fresh = FilterDenoise(tol=1e-3, diff=diff, on_fail="warn")
    if begin is not None:
        fresh.load_state_dict(runs.load(begin)[0].state_dict())
    return fresh


def crop(images: list[torch.Tensor], rng: torch.Generator) -> torch.Tensor:  # -> (1, CROP, CROP)
    """A part of one of them, perhaps mirrored, perhaps transposed."""
    image = images[torch.randint(len(images), (), generator=rng)]
    row, column = (int(torch.randint(n - CROP + 1, (), generator=rng)) for n in image.shape[1:])
    part = image[:, row : row + CROP, column : column + CROP]
    mirror, turn = torch.rand(2, generator=rng) < 0.5
    part = part.flip(2) if mirror else part
    return part.mT if turn else part


def main(out: Path, seconds: float = 3600.0, begin: Path | None = None) -> None:
    names = sorted((DATA / "bsd400_180").glob("test_*.png"))
    images, rng = photographs(names), torch.Generator().manual_seed(1)
    learn, held_out = images[:360], images[360::2]
    judged = torch.stack([image[:, 40:140, 40:140] for image in held_out])
    judged_noisy = judged + SIGMA * torch.randn(judged.shape, generator=rng)
    denoiser = model(begin)
    others = [denoiser.log_weight, denoiser.log_share, denoiser.log_delta]
    groups = [
        {"params": [denoiser.mix], "largest": STEPS["mix"]},
        {"params": others, "largest": STEPS["others"]},
    ]
    optimizer, start, k = torch.optim.Adam(groups, betas=(0.9, 0.99)), time.monotonic(), 0
    while (spent := (time.monotonic() - start) / seconds) < 1:
        for group in optimizer.param_groups:  # warm-up, then half a cosine
            group["lr"] = (
                group["largest"] * min(1, (k + 1) / 10) * (1 + math.cos(math.pi * spent)) / 2
            )
        clean = torch.stack([crop(learn, rng) for _ in range(BATCH)])
        noisy = clean + SIGMA * torch.randn(clean.shape, generator=rng)
        optimizer.zero_grad()
        loss = -psnr(denoiser(noisy), clean).mean()
        loss.backward()
        optimizer.step()
        k += 1
        if k % 40 == 0:
            with torch.no_grad():
                restored = torch.cat([denoiser(part) for part in judged_noisy.split(10)])
            print(f"{k} steps, {seconds * spent:.0f} s: {psnr(restored, judged).mean():.3f} dB")
    save(denoiser, out)


def save(denoiser: FilterDenoise, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    checkpoint.write(out / "model.safetensors", dict(denoiser.state_dict()))
    config = {
        "task": "denoise",
        "model": {"name": "filters", "noise_dependent": False},
        "data": {"noise": "25"},
    }
    (out / "config.toml").write_text(tomli_w.dumps(config))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), *map(float, sys.argv[2:3]), *map(Path, sys.argv[3:4]))
