"""Segmentation by scribbles: a model learned on 12 images against the hand-tuned one, on 8 others.

Data: 20 images of BSDS500 with their human segmentations (BSDS500_SEG names the folder), strokes
drawn with a fixed seed. Learned: five numbers, by L-BFGS through the iterations of the
Bregman primal-dual method, from cross-entropy on small copies. Told: mean intersection over union
on the pixels that nobody marked.

    python benchmarks/segmentation.py FOLDER             # writes benchmarks/results/
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from gradient_errors_report import RESULTS, machine

import bilevel as bl
from bilevel.layers import Segmenter
from bilevel.tasks import segment


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    paths = sorted(args.folder.glob("*.jpg"))
    models = {
        "colours and places alone": Segmenter(edge=1e-6).double(),
        "hand-tuned": Segmenter().double(),
        "learned": Segmenter().double(),
    }
    start = time.process_time()
    result = bl.learn(
        models["learned"],
        segment.samples(paths[:12]),
        segment.doubt,
        steps=args.steps,
        on_step=lambda step, record: print(step, record["loss"], flush=True),
    )
    seconds = time.process_time() - start
    held_out = segment.samples(paths[12:], seed=100)
    scores = {
        name: [segment.mean_iou(model, sample) for sample in held_out]
        for name, model in models.items()
    }
    learned = {name: float(models["learned"].value(name)) for name in segment.NAMES}
    losses = [float(record["loss"]) for record in result.history]
    write(scores, learned, losses, seconds, [path.stem for path in paths[12:]])


def write(scores: dict, learned: dict, losses: list, seconds: float, images: list[str]) -> None:
    facts = machine()
    told = {
        "machine": facts,
        "images": images,
        "scores": scores,
        "learned": learned,
        "losses": losses,
        "seconds": seconds,
    }
    (RESULTS / "segmentation.json").write_text(json.dumps(told, indent=1) + "\n")
    lines = [
        "# Segmentation by scribbles",
        "",
        "Intersection over union, averaged over the regions of an image, on 8 images that nothing "
        "was learned from. All are brought to 24 x 36 pixels.",
        "",
        "| model | mean | " + " | ".join(images) + " |",
        "|" + "---|" * (len(images) + 2),
        *(
            f"| {name} | {np.mean(row):.3f} | " + " | ".join(f"{v:.3f}" for v in row) + " |"
            for name, row in scores.items()
        ),
        "",
        "Learned: "
        + ", ".join(f"{k} {v:.3g}" for k, v in learned.items())
        + f"; loss {losses[0]:.3f} -> {losses[-1]:.3f} in {len(losses)} steps, {seconds:.0f} s of "
        "processor time on a machine that others used.",
        "",
        ", ".join(f"{k} {v}" for k, v in facts.items()),
        "",
    ]
    (RESULTS / "segmentation.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
