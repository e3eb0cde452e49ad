"""Batches of a map-style dataset, in an order that depends on the seed alone and can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

Batch = dict[str, Tensor]


class Dataset(Protocol):
    """Anything with a length whose item i is a dict of tensors or numbers of fixed shapes."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Mapping[str, Any]: ...


class Batches:
    """`next()` is a stacked batch with its samples' "index" (B,).

    Without a batch_size every batch is the whole data, read once; with one, each epoch is a new
    permutation, and its last batch may be smaller. Among many processes `next()` is the `part` of
    this one; `index` always has the whole batch.
    """

    def __init__(
        self,
        data: Dataset,
        batch_size: int | None,
        seed: int,
        device: torch.device,
        part: Callable[[Tensor], Tensor] = lambda index: index,
    ) -> None:
        _check(data, batch_size)
        self.data, self.batch_size, self.device, self._part = data, batch_size, device, part
        self._generator = torch.Generator().manual_seed(seed)
        self._order = torch.arange(len(data)) if batch_size is None else torch.arange(0)
        self._position = 0
        self.index = self._order
        self._whole = stack(data, part(self._order), device) if batch_size is None else None

    @property
    def whole(self) -> bool:
        """Every batch is all of the data."""
        return self.batch_size is None

    def next(self) -> Batch:
        if self._whole is not None:
            return dict(self._whole)
        assert self.batch_size is not None
        if self._position >= len(self._order):
            self._order = torch.randperm(len(self.data), generator=self._generator)
            self._position = 0
        self.index = self._order[self._position : self._position + self.batch_size]
        self._position += self.batch_size
        return self.take(self._part(self.index))

    def take(self, index: Tensor) -> Batch:
        """These samples."""
        if self._whole is not None and self._whole["index"].equal(index.to(self.device)):
            return dict(self._whole)
        return stack(self.data, index, self.device)

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self._generator.get_state(),
            "order": self._order,
            "position": self._position,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._order, self._position = state["order"], state["position"]


def stack(data: Dataset, index: Tensor, device: torch.device | None = None) -> Batch:
    """The samples as one batch, with their "index"."""
    numbers: Sequence[int] = index.tolist()
    samples = [_sample(data, i) for i in numbers]
    first = samples[0] if samples else {}  # with more processes than samples
    batch = {}
    for key in first:
        for i, sample in zip(numbers, samples, strict=True):
            if sample.keys() != first.keys() or sample[key].shape != first[key].shape:
                raise ValueError(
                    f"data[{i}] cannot be stacked with data[{numbers[0]}]: {_shapes(sample)} "
                    f"against {_shapes(first)}. Crop to one size, or pass batch_size=1."
                )
        batch[key] = torch.stack([sample[key] for sample in samples]).to(device)
    return batch | {"index": index.to(device)}


def _sample(data: Dataset, i: int) -> dict[str, Tensor]:
    sample = data[i]
    if not isinstance(sample, Mapping):
        raise TypeError(
            f"data[{i}] is a {type(sample).__name__}: learn needs a dict of tensors, "
            'such as {"noisy": ..., "clean": ...}.'
        )
    return {key: torch.as_tensor(value) for key, value in sample.items()}


def _shapes(sample: dict[str, Tensor]) -> str:
    return ", ".join(f"{key} {tuple(value.shape)}" for key, value in sample.items())


def _check(data: Dataset, batch_size: int | None) -> None:
    if isinstance(data, Mapping):
        raise TypeError(
            f"data is a {type(data).__name__}: a list of dicts is needed, one a sample. From "
            "tensors with the samples in dim 0: "
            "[dict(zip(data, row)) for row in zip(*data.values())]."
        )
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(
            f"data is a {type(data).__name__} without a length or without items by number: pass a "
            "map-style dataset or a list of dicts; learn does the batches itself."
        )
    if len(data) == 0:
        raise ValueError("data is empty: learn needs at least one sample.")
    if batch_size is not None and not 1 <= batch_size <= len(data):
        raise ValueError(
            f"batch_size={batch_size} does not fit {len(data)} samples: take 1 to {len(data)}, "
            "or None for all of them in every step."
        )
