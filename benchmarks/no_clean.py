"""What clean images are worth: the weight of total variation learned with them and without.

From the same noisy crops of the training photographs twice: by the squared error to the clean
ones, and by Stein's estimate of it (sure), which sees the noisy ones only. Told: both weights, and
PSNR on images that neither has seen (BSD68, every 7th).

    python benchmarks/no_clean.py                  # writes benchmarks/results/
"""

import time
from collections.abc import Sequence

import numpy as np
import torch
from measure import DATA, store

import bilevel as bl
from bilevel.tasks import data, images
from bilevel.tasks.denoise import Denoise
from bilevel.tasks.task import noise_left, weight_at

LEVELS, CROPS, STEPS, EVERY = (15, 25, 50), 16, 6, 7
TASK = Denoise()


def learned(samples: Sequence[data.Sample]) -> tuple[torch.nn.Module, float]:
    """(model, processor seconds)."""
    model, start = TASK.model(False), time.process_time()
    bl.learn(model, samples, noise_left, steps=STEPS, progress=False)
    return model, time.process_time() - start


def psnr(model: torch.nn.Module, pictures: Sequence[np.ndarray], level: float) -> float:
    """Mean, in dB, each picture with noise of its own seed."""
    values = []
    for number, clean in enumerate(pictures):
        seen = data.noisy(clean, level, np.random.default_rng([1, number]))
        values.append(-10 * np.log10(np.mean((TASK.apply(model, seen, level) - clean) ** 2)))
    return float(np.mean(values))


def main() -> None:
    torch.set_num_threads(1)
    seen = [images.read(path) for path in sorted((DATA / "bsd400_180").glob("*.png"))[:CROPS]]
    paths = sorted((DATA / "bsd68").glob("*.png"))[::EVERY]
    unseen = [images.read(path).gray()[None] for path in paths]
    rows = []
    for level in LEVELS:
        pairs = data.crops(seen, data.Noise.parse(str(level)), TASK, count=CROPS)
        alone = [{name: s[name] for name in s if name != "clean"} for s in pairs]
        (with_clean, first), (without, second) = learned(pairs), learned(alone)
        told = psnr(with_clean, unseen, level), psnr(without, unseen, level)
        rows.append(
            {
                "noise": level,
                "weight, with clean": weight_at(with_clean, level),
                "weight, without": weight_at(without, level),
                "PSNR, with clean": f"{told[0]:.3f}",
                "PSNR, without": f"{told[1]:.3f}",
                "lost": f"{told[0] - told[1]:.3f}",
                "seconds, with clean": first,
                "seconds, without": second,
            }
        )
    notes = (
        f"Total variation, its weight learned from {CROPS} noisy crops of 64 x 64, one a training "
        "photograph: by the squared error to the clean crop, or by Stein's unbiased estimate of "
        f"it. PSNR in dB, mean over {len(unseen)} images of BSD68 (every {EVERY}th), the same "
        "noise for both. seconds: of the processor, to learn."
    )
    store("no_clean", "Learned without clean images", rows, list(rows[0]), notes)


if __name__ == "__main__":
    main()
