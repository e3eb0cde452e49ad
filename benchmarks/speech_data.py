"""The frames of the speech benchmarks: as the papers prepare them, silent ones told apart."""

from pathlib import Path

import numpy as np
import torch
from measure import DATA
from torch import Tensor

from bilevel.tasks import audio
from bilevel.tasks.dequantize import quantize, radius

BITS, N = 4, 320
HALF = radius(BITS)


def paths(part: str, parity: int | None = None) -> list[Path]:
    """WAV files of `train` or `dev`; of dev, those whose list number is even or odd."""
    folder = DATA / "speech_ieee" / part
    if not folder.is_dir():
        raise SystemExit(f"{folder} is absent: this benchmark needs the shared speech.")
    found = sorted(folder.glob("*.wav"))
    return (
        found if parity is None else [p for p in found if int(p.name.split("_")[1]) % 2 == parity]
    )


def frames(part: str, parity: int | None = None) -> Tensor:  # (frames, 320), float64
    """Each file over its largest value, in frames side by side."""
    pieces = []
    for path in paths(part, parity):
        y = audio.read(path).samples[0]
        pieces.append((y / np.abs(y).max())[: len(y) // N * N].reshape(-1, N))
    return torch.from_numpy(np.concatenate(pieces))


def coarse(clean: Tensor) -> Tensor:
    return torch.from_numpy(quantize(clean.numpy(), BITS)).to(clean)


def loud(clean: Tensor) -> Tensor:  # (frames,) bool
    """The frames that are not silent: some sample lies outside the two innermost cells."""
    return (clean.abs() >= 2 * HALF).any(1)


def spread(clean: Tensor, count: int) -> Tensor:
    """So many of the frames, evenly."""
    return clean[:: max(len(clean) // count, 1)][:count]
