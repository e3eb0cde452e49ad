"""Segmentation by scribbles: a model learned on 12 images against the hand-tuned one, on 8 others.

Data: 20 images of BSDS500 with their human segmentations (BSDS500_SEG names the folder), several
draws of strokes in each. Learned: five numbers, by L-BFGS through the iterations of the Bregman
primal-dual method, from cross-entropy. Told: intersection over union on the pixels that nobody
marked, averaged over regions and draws.

    python benchmarks/segmentation.py FOLDER             # writes benchmarks/results/
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure import store

import bilevel as bl
from bilevel.layers import Segmenter
from bilevel.tasks import regions, segment

LEARNED_FROM = 12  # images, the first by name
DRAWS = {"learning": 3, "judging": 5}  # of strokes in each image


def draws(paths: list[Path], role: str, seed: int) -> list[segment.Sample]:
    """The images in turn, as often as there are draws of strokes."""
    return [
        sample
        for draw in range(DRAWS[role])
        for sample in segment.samples(paths, seed=seed + 1000 * draw)
    ]


def scores(model: Segmenter, samples: list[segment.Sample], images: int) -> np.ndarray:
    """(draws, images)."""
    found = [regions.mean_iou(regions.found(model, sample), sample) for sample in samples]
    return np.array(found).reshape(-1, images)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(args.folder.glob("*.jpg"))
    seen, unseen = paths[:LEARNED_FROM], paths[LEARNED_FROM:]
    learned, start = Segmenter().double(), time.process_time()
    result = bl.learn(learned, draws(seen, "learning", 0), segment.doubt, steps=args.steps)
    seconds = time.process_time() - start
    models = {
        "colours and places alone": Segmenter(edge=1e-6).double(),
        "hand-tuned": Segmenter().double(),
        "learned": learned,
    }
    held_out = draws(unseen, "judging", 100)
    found = {name: scores(model, held_out, len(unseen)) for name, model in models.items()}
    rows = [
        {"model": name, "mean": float(iou.mean())}
        | {path.stem: float(value) for path, value in zip(unseen, iou.mean(0), strict=True)}
        for name, iou in found.items()
    ]
    more = (found["learned"] - found["hand-tuned"]).mean(0)
    numbers = ", ".join(f"{name} {learned.value(name).item():.3g}" for name in segment.NAMES)
    losses = [float(record["loss"]) for record in result.history]
    notes = (
        "Intersection over union, averaged over the regions of an image and "
        f"{DRAWS['judging']} draws of strokes, on {len(unseen)} images that nothing was learned "
        f"or chosen from; all are brought to {segment.SHAPE[0]} x {segment.SHAPE[1]} pixels. "
        f"Learned minus hand-tuned: {more.mean():+.3f}, with a standard error over the images of "
        f"{more.std(ddof=1) / len(more) ** 0.5:.3f}; better on {(more > 0).sum()} of them. "
        f"Learned: {numbers}; loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps, "
        f"{seconds:.0f} s of processor time."
    )
    store("segmentation", "Segmentation by scribbles", rows, list(rows[0]), notes)


if __name__ == "__main__":
    main()
