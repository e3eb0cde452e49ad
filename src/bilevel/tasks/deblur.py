"""Deblurring: an image, seen through a known kernel, with noise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bilevel.differentiation import Truncated
from bilevel.layers import TVDeblur, TVDeblurer
from bilevel.tasks.kernels import read_all
from bilevel.tasks.task import Method, Task

TOL = 2e-3  # relative duality gap: PSNR right to 0.01 dB
DIFF = Truncated(500)  # a few per cent of the gradient; BiCGStab fails here, GMRES takes 5 x longer


@dataclass(frozen=True)
class Deblur(Task):
    """Blurred by the kernels in turn: image `number` by the one of that number."""

    kernels: tuple[str, ...]  # files and names, as `kernels.read` knows them
    turn: int = 0

    name, maker, done = "deblur", "deblurer", "deblurred"
    shown = 128  # solves take ten times as long as for denoising

    def at(self, number: int) -> Deblur:
        here = Deblur(self.kernels, number)
        object.__setattr__(here, "_stack", self._stack)  # the files are read once
        return here

    @cached_property
    def _stack(self) -> np.ndarray:  # (n, h, w): zeros around the smaller ones
        found = read_all(self.kernels)
        h, w = (max(kernel.shape[i] for kernel in found) for i in (0, 1))
        result = np.zeros((len(found), h, w))
        for wide, kernel in zip(result, found, strict=True):
            top, left = h // 2 - kernel.shape[0] // 2, w // 2 - kernel.shape[1] // 2  # the centres
            wide[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
        return result

    @property
    def kernel(self) -> np.ndarray:  # (h, w)
        return self._stack[self.turn % len(self._stack)]

    @property
    def margin(self) -> tuple[int, int]:
        h, w = self._stack.shape[1:]
        return h - 1, w - 1

    def see(self, clean: np.ndarray) -> np.ndarray:
        """What the kernel sees of the image alone: nothing is made up beyond its edges."""
        from scipy.signal import fftconvolve

        if any(n <= m for n, m in zip(clean.shape[1:], self.margin, strict=True)):
            raise ValueError(
                f"The kernel {self.kernel.shape} is larger than the image {clean.shape[1:]}. Use "
                "larger images or crops, or a smaller kernel."
            )
        return np.stack([fftconvolve(channel, self.kernel, mode="valid") for channel in clean])

    def target(self, clean: np.ndarray) -> np.ndarray:
        (h, w), (rows, columns) = self.kernel.shape, self.margin
        top, left = h - 1 - h // 2, w - 1 - w // 2  # the kernel's centre is its size // 2
        height, width = clean.shape[1] - rows, clean.shape[2] - columns
        return clean[:, top : top + height, left : left + width]

    def told(self) -> dict[str, Tensor]:
        return {"kernel": torch.from_numpy(self.kernel)}

    def config(self) -> dict[str, Any]:
        return {"kernel": list(self.kernels)}

    def model(self, per_noise: bool, weight: float | None = None) -> nn.Module:
        options: dict[str, Any] = {"tol": TOL, "diff": DIFF, "on_fail": "warn"}
        if per_noise:
            return TVDeblurer(math.log(0.1), 1.0, **options).double()  # the usual weight
        return TVDeblur(0.001 if weight is None else weight, **options).double()

    def usual_weight(self, level: float) -> float:
        return 0.1 * level / 255

    def classical(self) -> dict[str, Method]:
        return {"Wiener": self.wiener, "Richardson-Lucy": self.richardson_lucy}

    def wiener(self, seen: np.ndarray, level: float) -> np.ndarray:
        """scikit-image's, with the Laplacian as regulariser, on the image continued smoothly."""
        from skimage.restoration import wiener

        return self._padded(seen, lambda wide: wiener(wide, self.kernel, 60 * (level / 255) ** 2))

    def richardson_lucy(self, seen: np.ndarray, level: float) -> np.ndarray:
        """Stopped early, the earlier the more noise: it has no other regularisation."""
        from skimage.restoration import richardson_lucy

        steps = int(np.clip(60 / max(level, 0.5), 5, 60))
        return self._padded(
            seen, lambda wide: richardson_lucy(wide.clip(0), self.kernel, num_iter=steps)
        )

    def _padded(self, seen: np.ndarray, method: Any) -> np.ndarray:
        """Per channel, with a mirrored margin that is cut off again: neither knows of edges."""
        (rows, columns), (h, w) = self.kernel.shape, seen.shape[1:]
        pads = [(min(rows, h), min(rows, h)), (min(columns, w), min(columns, w))]
        wide = [method(np.pad(channel, pads, mode="symmetric")) for channel in seen]
        return np.stack([x[pads[0][0] : pads[0][0] + h, pads[1][0] : pads[1][0] + w] for x in wide])
