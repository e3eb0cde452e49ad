"""How well a model finds the regions that people have drawn, on images it has not learned from.

The judgement leaves in the run folder

    evaluation/regions.csv     one row for an image and a method
    evaluation/pictures/       IMAGE_METHOD.png
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel.layers import Segmenter
from bilevel.tasks import images, segment
from bilevel.tasks.evaluation import picture_path
from bilevel.tasks.images import Image, Kind
from bilevel.tasks.segment import Sample
from bilevel.tasks.tables import read_csv, replacing, write_csv

STROKES, PEOPLE, HAND, LEARNED = "strokes", "people", "hand-tuned", "learned"
ENLARGED = 8  # times, in the pictures


@dataclass(frozen=True)
class Score:
    image: str
    method: str
    iou: float  # intersection over union, averaged over the regions


@torch.no_grad()
def found(model: Any, sample: Sample) -> Tensor:  # -> (H, W), labels from 1
    return 1 + model(sample["image"][None], sample["scribbles"][None])[0].argmax(0)


def mean_iou(labels: Tensor, sample: Sample) -> float:
    """Intersection over union, over the pixels that nobody marked, averaged over the regions."""
    right = sample["labels"]
    free = (right > 0) & (sample["scribbles"] == 0)
    pairs = (((labels == k) & free, (right == k) & free) for k in right[free].unique())
    return float(np.mean([float((a & b).sum() / (a | b).sum()) for a, b in pairs]))


def judge(model: Segmenter, samples: Sequence[Sample], names: Sequence[str], run: Path):
    """The scores of the model and of the hand-tuned one; with pictures they go into RUN."""
    models, scores = {HAND: segment.load(None), LEARNED: model}, []
    with replacing(run / "evaluation") as folder:
        (folder / "pictures").mkdir()
        for name, sample in zip(names, samples, strict=True):
            shown = {STROKES: sample["scribbles"], PEOPLE: sample["labels"]}
            for method, judged in models.items():
                shown[method] = found(judged, sample)
                scores.append(Score(name, method, mean_iou(shown[method], sample)))
            for method, labels in shown.items():
                picture = Image(over(sample, labels), Kind(np.dtype(np.uint8)))
                images.write(picture_path(folder, name, method), picture)
        write_csv(folder / "regions.csv", [asdict(score) for score in scores])
    return scores


def over(sample: Sample, labels: Tensor) -> np.ndarray:  # -> (H, W, 3), enlarged
    """The image with the regions in colours, 0 as it is."""
    from skimage.color import lab2rgb, label2rgb

    pixels = lab2rgb(100 * np.moveaxis(sample["image"].numpy(), 0, -1))
    colored = label2rgb(labels.numpy(), pixels, alpha=0.5, bg_label=0)
    return colored.repeat(ENLARGED, 0).repeat(ENLARGED, 1)


def read_scores(run: Path) -> list[Score]:
    """evaluation/regions.csv; empty if there is none."""
    lines = read_csv(run / "evaluation" / "regions.csv", [f.name for f in fields(Score)])
    return [Score(line["image"], line["method"], float(line["iou"])) for line in lines]


def means(scores: Iterable[Score]) -> dict[str, float]:
    """Over the images, by method."""
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.method, []).append(score.iou)
    return {method: float(np.mean(of)) for method, of in values.items()}
