"""A second device without a GPU: its tensors hold one of the CPU and say that they lie elsewhere.

An operation mixes devices no more than CUDA's do: only a CPU tensor without dims, or indices, may
meet tensors that lie elsewhere. The numbers are real, so that loops and `.item()` run as ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

NAME = "elsewhere:0"
_MOVES = (torch.ops.aten._to_copy, torch.ops.aten.copy_, torch.ops.aten.copy)
_INDEXES = (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_)
_EAGER = {  # what only marks a tensor, against what works it out: no marks below the dispatch
    torch.ops.aten._conj: torch.ops.aten._conj_physical.default,
    torch.ops.aten._neg_view: torch.ops.aten.neg.default,
    torch.ops.aten._efficientzerotensor: torch.ops.aten.zeros.default,
}


class There(Tensor):
    """`held`, on the CPU, passed off as a tensor of another device."""

    held: Tensor
    is_cuda = True  # what a GPU's tensors take is taken

    @staticmethod
    def __new__(cls, held: Tensor) -> There:
        self = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            held.size(),
            strides=None if held.layout != torch.strided else held.stride(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(NAME),
        )
        self.held = held
        return self

    __torch_function__ = torch._C._disabled_torch_function_impl

    def numpy(self, *, force: bool = False) -> np.ndarray:
        if not force:
            raise TypeError(f"can't convert a tensor of {NAME} to numpy: copy it to the CPU first")
        return self.detach().cpu().numpy(force=True)

    def tolist(self) -> list:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, op, types, args=(), kwargs=None):
        return _called(op, args, kwargs or {})


class _Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:  # torch.utils.checkpoint asks for it
        return []


class _Watch(TorchDispatchMode):
    """Sees what makes tensors from none: torch.zeros(3, device=x.device)."""

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        return _called(op, args, kwargs or {})


@contextmanager
def elsewhere() -> Iterator[str]:
    """The name of the device, which is there meanwhile."""
    if torch._C._get_privateuse1_backend_name() != "elsewhere":
        _setup_privateuseone_for_python_backend("elsewhere", _Backend())
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=there) is then seen
    try:
        with _Watch(), torch.autograd.set_multithreading_enabled(False):
            yield NAME
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def _called(op, args: tuple, kwargs: dict):
    """The operation on what the tensors hold; its results lie where theirs would."""
    packet, asked = op.overloadpacket, kwargs.get("device")
    there: dict[int, There] = {}
    here: list[Tensor] = []

    def held(value):
        if isinstance(value, There):
            there[id(value.held)] = value
            return value.held
        if isinstance(value, Tensor):
            here.append(value)
        return type(value)(map(held, value)) if type(value) in (list, tuple) else value

    def lying_there(value):
        if isinstance(value, Tensor):
            return there[id(value)] if id(value) in there else There(value)
        return type(value)(map(lying_there, value)) if type(value) in (list, tuple) else value

    args, kwargs = held(args), {name: held(value) for name, value in kwargs.items()}
    if there and packet not in _MOVES:
        _refuse_a_mix(op, args[:1] if packet in _INDEXES else here, there)
    if asked is not None and asked.type == "elsewhere":
        kwargs["device"] = torch.device("cpu")
    goes_there = bool(there) if asked is None else asked.type == "elsewhere"
    if packet is torch.ops.aten.copy_:
        goes_there = id(args[0]) in there
    out = _EAGER.get(packet, op)(*args, **kwargs)
    return lying_there(out) if goes_there else out


def _refuse_a_mix(op, tensors, there: dict) -> None:
    shapes = [tuple(t.shape) for t in tensors if t.ndim and id(t) not in there]
    if shapes:
        raise RuntimeError(f"{op}: tensors on {NAME}, but those of shapes {shapes} on the CPU")
