"""Checkpoints: a tree of state in one safetensors file that vouches for itself. Never pickle.

A tree is made of dicts, lists and tuples, with tensors, numbers, strings and None at its leaves.
Its tensors are named by their path ("optimizer.state.0.exp_avg"); everything else is the skeleton,
JSON in the file's metadata, beside the SHA-256 of both. A file appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

FORMAT = "bilevel-1"


class Damaged(ValueError):
    """A file that is not, or no longer, what bilevel wrote."""


def write(path: Path, tree: Any) -> None:
    """Write the tree atomically."""
    tensors: dict[str, Tensor] = {}
    skeleton = json.dumps(_pack(tree, (), tensors))
    metadata = {"format": FORMAT, "skeleton": skeleton, "sha256": _digest(skeleton, tensors)}
    write_bytes(path, safetensors.torch.save(tensors, metadata))


def read(path: Path) -> Any:
    """Read the tree back, on the CPU; `Damaged` if a single bit differs from what was written."""
    data = path.read_bytes()
    try:
        tensors = safetensors.torch.load(data)  # checks the header against the length
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise Damaged(f"{path} is no safetensors file, or a truncated one ({error}).") from error
    if metadata.get("format") != FORMAT:
        raise Damaged(f"{path} was not written by bilevel: it does not carry the mark {FORMAT!r}.")
    skeleton = metadata.get("skeleton", "")
    if metadata.get("sha256") != _digest(skeleton, tensors):
        raise Damaged(f"{path} is damaged: its contents do not match its SHA-256.")
    return _unpack(json.loads(skeleton), tensors)  # the digest is right, so this is what we wrote


def snapshot(tree: Any) -> Any:
    """A copy that later steps cannot change: tensors detached, cloned, on the CPU."""
    if isinstance(tree, Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        return {key: snapshot(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        copies = (snapshot(value) for value in tree)
        return list(copies) if isinstance(tree, list) else tuple(copies)
    return tree


def named_tensors(tree: Any) -> dict[str, Tensor]:
    """The tensors of a tree by their paths, copied to the CPU."""
    tensors: dict[str, Tensor] = {}
    _pack(tree, (), tensors)
    return tensors


def write_bytes(path: Path, data: bytes) -> None:
    """Replace the file in one move: whatever happens, it holds the old bytes or the new."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if os.name == "posix":  # elsewhere a folder cannot be synchronised
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name the file, the cause and the way out when the system refuses a write."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise type(error)(
            error.errno,
            f"Cannot write {path}: {reason}. Free space or choose a folder you may write to.",
        ) from error


class Checkpoints:
    """The two newest checkpoints of a run, `step-00000120.safetensors`, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("step-*.safetensors"))

    def save(self, step: int, tree: Any) -> None:
        with writing(self.folder):
            self.folder.mkdir(exist_ok=True)
        write(self.folder / f"step-{step:08d}.safetensors", tree)
        for old in self.paths()[:-2]:
            old.unlink(missing_ok=True)

    def newest(self) -> Any | None:
        """The newest tree, None if there is no file. Refuses a damaged one and offers its elder."""
        paths = self.paths()
        if not paths:
            return None
        try:
            return read(paths[-1])
        except Damaged as error:
            for elder in reversed(paths[:-1]):
                try:
                    read(elder)
                except Damaged:
                    continue
                advice = f"{elder.name} is good: delete {paths[-1].name} and resume from it."
                break
            else:
                advice = "No good checkpoint is left: start again in another folder."
            raise Damaged(f"{error} {advice}") from error


def _pack(tree: Any, path: tuple[str, ...], tensors: dict[str, Tensor]) -> Any:
    if isinstance(tree, Tensor):
        name = ".".join(path)
        while name in tensors:  # {"a.b": ..., "a": {"b": ...}}
            name += "'"
        is_complex = tree.is_complex()
        tree = torch.view_as_real(tree.resolve_conj()) if is_complex else tree
        # copied: safetensors takes no two that share memory
        tensors[name] = tree.detach().to("cpu", copy=True).contiguous()
        return {"complex" if is_complex else "tensor": name}
    if isinstance(tree, dict):
        return {
            "dict": [
                [_pack(key, (), {}), _pack(value, (*path, str(key)), tensors)]
                for key, value in tree.items()
            ]
        }
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {kind: [_pack(v, (*path, str(i)), tensors) for i, v in enumerate(tree)]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    raise TypeError(
        f"A checkpoint holds tensors, numbers, strings, None, dicts, lists and tuples; "
        f"{'.'.join(path) or 'the state'} is a {type(tree).__name__}. Convert it to one of these."
    )


def _unpack(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "complex":
        return torch.view_as_complex(tensors[content])
    if kind == "dict":
        return {_unpack(key, tensors): _unpack(value, tensors) for key, value in content}
    values = (_unpack(value, tensors) for value in content)
    return list(values) if kind == "list" else tuple(values)


def _digest(skeleton: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(skeleton.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        if tensor.numel():  # an empty tensor has no bytes, and may have a stride that view refuses
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
