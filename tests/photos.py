"""Small images for the tests of the denoising task: cartoons, which total variation likes."""

from pathlib import Path

import numpy as np

from bilevel.tasks import images


def cartoon(size=24, colour=False, seed=0):
    """A few rectangles of constant gray values or colours."""
    rng = np.random.default_rng(seed)
    pixels = np.full((size, size, 3), rng.random(3))
    for _ in range(6):
        top, left = rng.integers(0, size - 6, 2)
        pixels[top : top + size // 3, left : left + size // 2] = rng.random(3)
    return pixels if colour else pixels[..., 0]


def write_photos(folder: Path, count=3, size=24):
    """a0.png (gray), a1.png (colour), a2.png (gray), ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = cartoon(size, colour=i % 2 == 1, seed=i)
        kind = images.Kind(np.dtype(np.uint8))
        images.write(folder / f"a{i}.png", images.Image(pixels, kind))
    return folder
