"""A strategy gets the loop and the fixed point, and returns z with a derivative."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run

Z = tuple[Tensor, ...]


class Strategy(ABC):
    """How the solution is differentiated."""

    settles = (
        True  # whether the derivative needs z at the fixed point, not only a small duality gap
    )

    records = False  # whether it differentiates the steps of the run

    @abstractmethod
    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z: ...
