"""The processes that torchrun started, as one team: Lightning Fabric connects them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from bilevel.learning.signals import Signals

# A process that dies closes its connections, and the others know at once. This is for a machine
# that vanishes from the network, and a script that calls learn in some processes only: Fabric's
# half hour is less than one evaluation may take.
TIMEOUT = timedelta(hours=3)


def size() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 1


def is_first() -> bool:
    return size() == 1 or os.environ["RANK"] == "0"


class Lost(RuntimeError):
    """Another process of the team is gone."""


class Team:
    """Messages between the first process and the others. `with Team(model) as team: ...`

    Objects travel by gloo, which notices at once when a process dies; gradients by the backend of
    the model's device, gloo or NCCL. On GPUs the model moves to that of its process.
    """

    def __init__(self, model: nn.Module) -> None:
        self.fabric = _fabric(model)
        self.rank, self.size = self.fabric.global_rank, self.fabric.world_size
        self.signals = Signals()
        self.is_connected = True
        model.to(self.fabric.device)

    def __enter__(self) -> Team:
        self.signals.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.signals.__exit__(*exception)

    def split(self, index: Tensor) -> list[Tensor]:
        """Of a batch, what each process takes: contiguous parts, as equal as can be."""
        return list(index.tensor_split(self.size))

    def part(self, index: Tensor) -> Tensor:
        return self.split(index)[self.rank]

    def broadcast(self, message: Any = None) -> Any:
        """What the first process passes, in every process."""
        with self._connected():
            return self.fabric.broadcast(message)

    def scatter(self, messages: list[Any] | None = None) -> Any:
        """Item r of what the first process passes, in process r."""
        received: list[Any] = [None]
        with self._connected():
            torch.distributed.scatter_object_list(received, messages)
        return received[0]

    def gather(self, message: Any) -> list[Any]:
        """In the first process, what each one passes; elsewhere []."""
        messages = [None] * self.size if self.rank == 0 else None
        with self._connected():
            torch.distributed.gather_object(message, messages)
        return messages or []

    def sum(self, tensors: list[Tensor]) -> list[Tensor]:
        """Over the processes, in every one of them."""
        total: dict[int, Tensor] = {}
        for dtype in dict.fromkeys(t.dtype for t in tensors):  # one message a dtype
            group = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            flat = torch.cat([tensors[i].reshape(-1) for i in group])
            with self._connected():
                flat = self.fabric.all_reduce(flat, reduce_op="sum")
            assert isinstance(flat, Tensor)
            parts = flat.split([tensors[i].numel() for i in group])
            total |= {i: p.view_as(tensors[i]) for i, p in zip(group, parts, strict=True)}
        return [total[i] for i in range(len(tensors))]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # whatever the backend calls it
            self.is_connected = False
            self.signals.ignore()  # torchrun's SIGTERM is on its way
            reason = str(error).partition(". This is typically")[0]
            raise Lost(
                f"Process {self.rank} of {self.size} has lost another one ({reason}), which was "
                "killed, or failed, or the network did: torchrun's report says which process ended "
                "first, and how."
            ) from None


def _fabric(model: nn.Module) -> Any:
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise ImportError(
            f"torchrun started {size()} processes, but lightning-fabric, which connects them, is "
            "not installed: pip install 'bilevel[many]', or start one process without torchrun."
        ) from error
    # its banner of success would come first among the lines that people read
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
    kinds = {p.device.type for p in model.parameters()} or {"cpu"}
    if len(kinds) > 1 or not kinds <= {"cpu", "cuda"}:
        raise ValueError(
            f"The model's parameters are on {sorted(kinds)}: with many processes they must all be "
            "on the CPU, or all on the GPU of the process."
        )
    (kind,) = kinds
    local = int(os.environ["LOCAL_WORLD_SIZE"])
    fabric = Fabric(
        accelerator=kind,
        devices=local,
        num_nodes=size() // local,
        strategy=DDPStrategy(
            process_group_backend="gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl",
            timeout=TIMEOUT,
        ),
    )
    fabric.launch()
    return fabric
