"""What restores an image, and what a page tells of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

from bilevel.accuracy import accuracy
from bilevel.differentiation.certificate import Certificate, merge
from bilevel.tasks.images import Image


@dataclass(frozen=True)
class ByWeight:
    """The middle of an image, in gray: as given, and restored with several weights."""

    given: np.ndarray  # (H, W)
    pictures: dict[float, np.ndarray]  # rising; the weight that was taken is in the middle


class Restorer(ABC):
    """restorer(image) -> the channels (C, H, W), and what to tell of them."""

    @abstractmethod
    def __call__(self, image: Image) -> tuple[np.ndarray, str]: ...

    def known(self) -> dict[str, np.ndarray]:
        """What it knows beside the image: names, and pictures (h, w) in [0, 1]."""
        return {}

    def by_weight(self, image: Image) -> ByWeight | None:
        """None where there is no weight."""
        return None


@dataclass(frozen=True)
class Restored:
    """An image, restored; `certificate` is that of the solves, one number a channel."""

    given: Image
    result: Image
    told: str
    certificate: Certificate = field(repr=False)

    @classmethod
    def of(cls, image: Image, restorer: Restorer) -> Restored:
        found: list[Certificate] = []
        with accuracy(report=found):
            channels, told = restorer(image)
        return cls(image, image.with_channels(channels), told, merge(found))
