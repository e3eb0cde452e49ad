"""Warm starts: a solve of a learning run begins where the same solve of the sample last ended.

`learn` opens `warm_starts(store, index)` around every evaluation of the loss. Inside, `argmin` asks

    context = current()            # None outside of learn
    z0 = context.recall(z0)        # the state kept for these samples, else the default
    ...
    context.keep(z)

A solve is known by its number within the evaluation (0, 1, ... in the order of `recall`) and by the
sample's index in the data, so the order and the size of the batches play no part.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import Tensor

Z = tuple[Tensor, ...]
Rows = dict[tuple[int, int], Z]  # of (solve, sample), without the batch dimension


class WarmStarts:
    """The solver's state per (solve, sample), on the CPU. Memory: one z per sample and solve."""

    def __init__(self) -> None:
        self._rows: Rows = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, solve: int, sample: int, like: Z) -> Z:  # rows without the batch dimension
        """The kept row, or `like` where there is none of the same shape and dtype."""
        row = self._rows.get((solve, sample), ())
        return row if [_kind(part) for part in row] == [_kind(part) for part in like] else like

    def put(self, solve: int, sample: int, row: Z) -> None:
        self._rows[solve, sample] = row

    def rows(self, samples: Collection[int]) -> Rows:
        """Those of some samples."""
        wanted = set(samples)
        return {key: row for key, row in self._rows.items() if key[1] in wanted}

    def update(self, rows: Rows) -> None:
        self._rows |= rows

    def state_dict(self) -> Rows:
        return dict(self._rows)  # shallow: a row is replaced, never changed in place

    def load_state_dict(self, state: Rows) -> None:
        self._rows = dict(state)


@dataclass(eq=False)
class Context:
    """One evaluation of the loss on one batch: numbers its solves and finds their rows."""

    store: WarmStarts
    index: list[int]  # the samples of the batch
    solve: int = field(default=-1, init=False)

    def recall(self, like: Z) -> Z:  # parts (B, ...) -> parts (B, ...)
        """Where the next solve starts. A sample never seen takes its default."""
        self.solve += 1
        if not self._covers(like):
            return like
        defaults = zip(*(part.detach().unbind(0) for part in like), strict=True)
        rows = [
            self.store.get(self.solve, sample, default)
            for sample, default in zip(self.index, defaults, strict=True)
        ]
        return tuple(
            torch.stack([row.to(part.device) for row in column])
            for part, column in zip(like, zip(*rows, strict=True), strict=True)
        )

    def keep(self, z: Z) -> None:
        """Remember z for the solve that last called `recall`."""
        if not self._covers(z):
            return
        columns = [part.detach().cpu().unbind(0) for part in z]
        for sample, row in zip(self.index, zip(*columns, strict=True), strict=True):
            # cloned: a view would keep the whole batch alive, and see it change
            self.store.put(self.solve, sample, tuple(part.clone() for part in row))

    def _covers(self, z: Z) -> bool:  # a solve over patches, say, has rows that are no samples
        return all(part.dim() > 0 and len(part) == len(self.index) for part in z)


_current: ContextVar[Context | None] = ContextVar("bilevel_warm_start", default=None)


def current() -> Context | None:
    """The evaluation under way, or None outside of `learn`."""
    return _current.get()


@contextmanager
def warm_starts(store: WarmStarts, index: Tensor) -> Iterator[Context]:  # index: (B,)
    """Solves inside start from `store` and leave their last state there."""
    context = Context(store, index.tolist())
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
