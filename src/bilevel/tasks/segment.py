"""Segmentation: the regions of an image that a person has named by scribbles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevel import learning
from bilevel.layers import Segmenter
from bilevel.learning.learn import learn as learn_parameters
from bilevel.tasks import check_task
from bilevel.tasks.images import Image, ImageError, Kind, read, scan

TASK = "segment"
NAMES = ("color", "space", "trust", "edge", "contrast")  # of what is learned
LEAST = 0.01  # of the image: smaller regions get no scribble, and do not count
SHAPE = (24, 36)  # to which images are brought to learn from them
MOST = 1e-6  # a probability of 0 is taken for this, in the loss

Sample = dict[str, Tensor]  # image (3, H, W) as Lab / 100, scribbles and labels (H, W), 0 for none


def features(image: Image) -> np.ndarray:  # -> (3, H, W)
    """CIE Lab, over 100."""
    from skimage.color import gray2rgb, rgb2lab

    pixels = image.pixels if image.pixels.ndim == 3 else gray2rgb(image.pixels)
    return np.moveaxis(rgb2lab(pixels.clip(0, 1)), -1, 0) / 100


def read_scribbles(path: Path, image: Image) -> np.ndarray:  # -> (H, W) from 0
    """A drawing of the image's size: black is free, every other colour is one region."""
    drawing = read(path).pixels
    if drawing.shape[:2] != image.pixels.shape[:2]:
        raise ImageError(
            f"The scribbles {path} have the size {drawing.shape[:2]}, the image {image.path} "
            f"{image.pixels.shape[:2]}. Draw on a copy of the image's size."
        )
    colors = drawing.reshape(*drawing.shape[:2], -1)
    found, labels = np.unique(colors.reshape(-1, colors.shape[2]), axis=0, return_inverse=True)
    black = (found == 0).all(1)
    if not 2 <= (~black).sum() <= 64:
        raise ImageError(
            f"The scribbles {path} have {(~black).sum()} colours beside black: draw 2 to 64 "
            "regions, each in a flat colour, in a file without losses such as PNG."
        )
    numbers = np.where(black, 0, np.cumsum(~black))
    return numbers[labels.reshape(drawing.shape[:2])]


def load(run: Path | None) -> Segmenter:
    """The model of a run folder; the hand-tuned one without."""
    model = Segmenter().double()
    if run is None:
        return model
    config, state = learning.read_config(run), learning.read_model(run)
    check_task(run, config, TASK)
    if config.get("task") != TASK or state.keys() != model.state_dict().keys():
        raise ValueError(f"{run} is no run of bilevel learn {TASK}. Check the path.")
    learning.fill(model, state, run)
    return model


def learn(
    paths: Sequence[Path], out: Path, *, steps: int, config: dict[str, Any], resume: bool = False
) -> Segmenter:
    """Learns by L-BFGS on all images at once and leaves the run folder `out`; the config names
    the seed of the strokes."""
    model, seed = load(None), config["seed"]
    config = {"task": TASK, **config, "count": len(paths)}
    learn_parameters(
        model, samples(paths, seed=seed), doubt, steps=steps, seed=seed, out=out, resume=resume,
        config=config,
    )  # fmt: skip
    return model


def options(run: Path) -> dict[str, Any]:
    """What a run began with."""
    load(run)  # that it is one
    config = learning.read_config(run)
    return {name: config[name] for name in ("images", "seed")}


def segmented(folder: Path) -> list[Path]:
    """The images of a folder that have human segmentations; two at least."""
    paths = [path for path in scan(folder) if path.with_suffix(".mat").exists()]
    if len(paths) < 2:
        raise ImageError(
            f"{folder} holds {len(paths)} images with the .mat of a human segmentation beside "
            "them: at least 2 are needed, one to learn from and one to judge by."
        )
    return paths


def as_image(labels: np.ndarray) -> Image:
    return Image(labels / 255.0, Kind(np.dtype(np.uint8)))


@torch.no_grad()
def segment(model: Segmenter, image: Image, scribbles: np.ndarray) -> np.ndarray:
    """(H, W), labels from 1."""
    u = model(torch.from_numpy(features(image))[None], torch.from_numpy(scribbles)[None])
    return 1 + u[0].argmax(0).numpy()


# ------------------------------------------------------------------------ human segmentations


def regions(path: Path) -> np.ndarray:  # -> (H, W), 0 where no region of some size is
    """The coarsest of the human segmentations in a file of BSDS500."""
    from scipy.io import loadmat

    truth = loadmat(path)["groundTruth"]
    maps = [truth[0, j]["Segmentation"][0, 0].astype(int) for j in range(truth.shape[1])]
    large = [np.flatnonzero(np.bincount(m.ravel()) >= LEAST * m.size) for m in maps]
    best = min(range(len(maps)), key=lambda j: len(large[j]))
    numbers = np.zeros(maps[best].max() + 1, dtype=int)
    numbers[large[best]] = np.arange(1, len(large[best]) + 1)
    return numbers[maps[best]]


def draw_scribbles(labels: np.ndarray, seed: int) -> np.ndarray:
    """One stroke in each region: from its most interior point towards another one inside."""
    from scipy.ndimage import distance_transform_edt
    from skimage.draw import line

    result, rng = np.zeros_like(labels), np.random.default_rng(seed)
    for label in range(1, labels.max() + 1):
        inside = np.pad(labels == label, 1)
        depth = np.asarray(distance_transform_edt(inside))[1:-1, 1:-1]
        start = np.unravel_index(depth.argmax(), depth.shape)
        deep = np.argwhere(depth >= min(2, depth.max()))
        rows, columns = line(*start, *deep[rng.integers(len(deep))])
        kept = depth[rows, columns] >= min(2, depth.max())
        result[rows[kept], columns[kept]] = label
    return result


def samples(paths: Sequence[Path], shape: tuple[int, int] = SHAPE, seed: int = 0) -> list[Sample]:
    """Images with a .mat beside them, brought to one shape, upright ones laid on their side."""
    from skimage.transform import resize

    found = []
    for number, path in enumerate(paths):
        image, labels = features(read(path)), regions(path.with_suffix(".mat"))
        if labels.shape[0] > labels.shape[1]:
            image, labels = image.transpose(0, 2, 1), labels.T
        image = resize(image, (3, *shape), anti_aliasing=True)
        rows, columns = (
            ((np.arange(n) + 0.5) * m / n).astype(int)
            for n, m in zip(shape, labels.shape, strict=True)
        )
        labels = labels[np.ix_(rows, columns)]
        scribbles = draw_scribbles(labels, seed + number)
        found.append(
            {
                "image": torch.from_numpy(image),
                "scribbles": torch.from_numpy(scribbles),
                "labels": torch.from_numpy(labels),
            }
        )
    return found


def doubt(model: Any, batch: Any) -> Tensor:
    """-log of the probability of the right label, averaged over the pixels that nobody marked."""
    u = model(batch["image"], batch["scribbles"])
    free = (batch["labels"] > 0) & (batch["scribbles"] == 0)
    right = u.gather(1, (batch["labels"] - 1).clamp(min=0)[:, None])[:, 0]
    losses = torch.where(free, -right.clamp(min=MOST).log(), 0.0).flatten(1).sum(1)
    return (losses / free.flatten(1).sum(1).clamp(min=1)).mean()
