"""The tensors and numbers that an energy was built from: their kinds and their values."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._one_thread import extremes
from .._remembered import OfTensor
from ..operators.base import Operator
from ..terms.base import Smooth, Term
from ..terms.smooth import LeastSquares

_BOUNDS = ("lower", "upper")  # may be infinite
_SQUARED = ("x0", "target", "center")  # enter values by their squares
_LARGE = 10_000  # numbers whose ends it costs less to remember than to look for
_PRECISE = (torch.float32, torch.float64)
_POSITIVE = "To keep a learned one so, learn its logarithm: log_{0}.exp()."
_UNIT = "lies between 0 and 1. To keep a learned one there, learn its logit: logit.sigmoid()."
_AT_LEAST_0 = ("weight", "radius", "threshold", "strength", "background")
_ABOVE_0 = ("delta", "total", "scale", "width", "height", "smoothing")
_DOMAIN: dict[str, tuple[Callable[[float, float], bool], str]] = {  # test of (least, largest)
    **{n: (lambda low, high: low >= 0, f"a {n} must be >= 0. {_POSITIVE}") for n in _AT_LEAST_0},
    **{n: (lambda low, high: low > 0, f"a {n} must be > 0. {_POSITIVE}") for n in _ABOVE_0},
    **{n: (lambda low, high: low >= 0 and high <= 1, f"a {n} {_UNIT}") for n in ("ratio", "level")},
    "counts": (lambda low, high: low >= 0, "counts are >= 0. Clamp the data."),
    "constant": (lambda low, high: low >= 0, "a Lipschitz constant is >= 0; None if unknown."),
}


class Field(NamedTuple):
    owner: object  # a term or an operator; None for x0
    name: str
    value: Any

    def __str__(self) -> str:
        return self.name if self.owner is None else f"{type(self.owner).__name__}.{self.name}"


@lru_cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else ()


def fields_of(value: object) -> Iterator[Field]:
    """Every field of a term or operator, and of those that it is composed of."""
    for name in _names(type(value)):
        item = getattr(value, name)
        if isinstance(item, float | int | Tensor):  # first: it is quick
            yield Field(value, name, item)
            continue
        for part in item if isinstance(item, tuple) else (item,):
            if isinstance(part, Term | Operator):
                yield from fields_of(part)
            else:
                yield Field(value, name, part)


def check_kinds(found: list[Field]) -> None:
    """Tensors and numbers; dense, of one dtype, on one device. Numbers fit every dtype, and so do
    0-dim tensors.
    """
    first: Field | None = None
    for field in found:
        value = field.value
        if not isinstance(value, Tensor):
            _not_a_tensor(field)
            continue
        if field.name in getattr(field.owner, "integers", ()):  # checked where it is made
            continue
        if value.is_meta or value.is_nested or value.layout != torch.strided:
            _storage(field)
        if value.dtype == torch.bool and isinstance(field.owner, Operator):
            continue  # a mask fits every dtype
        dtype = value.dtype.to_real() if _may_be_complex(field) else value.dtype
        if dtype not in _PRECISE and (value.ndim or value.is_complex()):
            _dtype(field)
        if not value.ndim:
            continue
        first = first or field
        if dtype != first.value.dtype.to_real():
            raise TypeError(
                f"{field} has dtype {value.dtype}, {first} has {first.value.dtype}. "
                f"Convert one: {field.name}.to({_matching(value, first.value)})."
            )
        if value.device != first.value.device:
            raise ValueError(
                f"{field} is on {value.device}, {first} on {first.value.device}. "
                f"Move one: {field.name}.to({str(first.value.device)!r})."
            )


def _matching(value: Tensor, first: Tensor) -> torch.dtype:
    """The precision of the first, real or complex as the value is."""
    real = first.dtype.to_real()
    return real.to_complex() if value.is_complex() else real


def _may_be_complex(field: Field) -> bool:
    """What an operator holds, and the data of one: x itself is real."""
    return isinstance(field.owner, Operator | LeastSquares) and field.name != "weight"


def _not_a_tensor(field: Field) -> None:
    """Refuse arrays and lists where a tensor or a number belongs."""
    value, name = field.value, field.name
    if field.owner is None:
        wanted = "a torch tensor"
    elif name in getattr(field.owner, "batched", ()) and not isinstance(value, Real):
        wanted = "a torch tensor or a number"
    else:
        return
    raise TypeError(
        f"{field} must be {wanted}, got {type(value).__name__}. Use torch.as_tensor({name})."
    )


def _storage(field: Field) -> None:
    """Refuse a tensor without plain values."""
    value, name = field.value, field.name
    if value.is_meta:
        raise ValueError(f"{field} is on the meta device, which holds no values. Load them first.")
    if value.is_nested:
        raise TypeError(
            f"{field} is a nested tensor: the samples of a batch have one shape. "
            f"Pad them, {name}.to_padded_tensor(0.0), or solve them one by one."
        )
    if not isinstance(field.owner, Operator):
        raise TypeError(
            f"{field} is sparse ({value.layout}): only Matrix takes sparse tensors. "
            f"Use {name}.to_dense()."
        )


def _dtype(field: Field) -> None:
    """Refuse a tensor that is neither single nor double precision, saying why."""
    dtype, name = field.value.dtype, field.name
    if dtype.is_complex:
        raise TypeError(
            f"{field} is complex ({dtype}): only operators and the data of LeastSquares @ operator "
            f"may be. Use torch.view_as_real({name}), or its real part."
        )
    if not dtype.is_floating_point:
        raise TypeError(
            f"{field} has dtype {dtype}: floating point is needed. Convert it, {name}.float()"
            + (", and divide an 8-bit image by 255." if dtype == torch.uint8 else ".")
        )
    raise TypeError(
        f"{field} has dtype {dtype}, too coarse to solve in: float32 or float64 is needed. "
        f"Convert it, {name}.float()."
    )


def check_values(found: list[Field], dtype: torch.dtype) -> None:
    """NaN and inf, signs, magnitudes."""
    tensors = [f for f in found if isinstance(f.value, Tensor) and f.value.numel()]
    for field, (low, high) in zip(tensors, _ends([f.value for f in tensors]), strict=True):
        _value(field, low, high, dtype)
    for field in found:
        if isinstance(field.value, float | int | Real):
            _value(field, float(field.value), float(field.value), dtype)
        if field.name == "upper":
            _order(field.owner)
        elif field.name == "labels" and "labels" in getattr(field.owner, "batched", ()):
            _labels(field)


def _ends(tensors: list[Tensor]) -> list[tuple[float, float]]:
    """(min, max) of each, NaN where it has one; an accelerator is read once."""
    ends: list[Tensor] = []
    for tensor in tensors:
        ends.extend((_least_and_most if tensor.numel() <= _LARGE else _known_ends)(tensor))
    far = [i for i, end in enumerate(ends) if not end.is_cpu]
    if far:
        together = torch.stack([ends[i].to(ends[far[0]].device) for i in far])
        for i, end in zip(far, together.cpu(), strict=True):
            ends[i] = end
    numbers = [end.item() for end in ends]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _least_and_most(tensor: Tensor) -> tuple[Tensor, Tensor]:
    values = tensor if tensor.layout == torch.strided else tensor.coalesce().values()
    values = torch.view_as_real(values.resolve_conj()) if values.is_complex() else values
    if values.ndim > 1 and values.mT.is_contiguous():
        values = values.mT  # as it is stored: else a copy is made
    return extremes(values if values.numel() else values.new_zeros(1))


_known_ends = OfTensor(_least_and_most)


def _value(field: Field, low: float, high: float, dtype: torch.dtype) -> None:
    name = field.name
    if low != low or (name not in _BOUNDS and not (-math.inf < low and high < math.inf)):
        numbers = torch.as_tensor(field.value).detach()
        numbers = numbers.coalesce().values() if numbers.layout != torch.strided else numbers
        raise ValueError(
            f"{field} is NaN or inf in {int((~numbers.isfinite()).sum())} of {numbers.numel()} "
            "values. Clean the data; if it is learned, look at the step before."
        )
    if name in _DOMAIN:
        inside, rule = _DOMAIN[name]
        if not inside(low, high):
            got = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
            raise ValueError(f"{field} = {got}: {rule.format(name)}")
    size, (least, most) = max(abs(low), abs(high)), _limits(dtype)
    if size > most or 0 < size < least:
        _magnitude(field, size, dtype)


@lru_cache
def _limits(dtype: torch.dtype) -> tuple[float, float]:
    """Sizes whose squares, summed over an image, stay in the range of the dtype."""
    return 1e3 * torch.finfo(dtype).tiny ** 0.5, 1e-3 * torch.finfo(dtype).max ** 0.5


def _magnitude(field: Field, size: float, dtype: torch.dtype) -> None:
    """Refuse what is squared, in values or in Lipschitz constants, and too large or too small."""
    scales = isinstance(field.owner, Operator)
    scales = scales or (field.name == "weight" and isinstance(field.owner, Smooth))
    small = size < 1
    if not scales and field.name not in (("target",) if small else _SQUARED):
        return
    raise ValueError(
        f"{field} has values up to {size:.1e}: their squares {'under' if small else 'over'}flow "
        f"{dtype}. Rescale the problem, or use float64."
    )


def _order(box: Any) -> None:
    """lower <= upper, and a number between them."""
    lower, upper = box.lower, box.upper
    if not isinstance(lower, Tensor) and not isinstance(upper, Tensor):
        low, high, crossed = lower, upper, lower > upper
    else:
        lower, upper = torch.as_tensor(lower), torch.as_tensor(upper)
        if not lower.numel() or not upper.numel():  # an empty batch
            return
        low, high, crossed = float(lower.max()), float(upper.min()), bool((lower > upper).any())
    if crossed or low == math.inf or high == -math.inf:
        raise ValueError(
            f"{type(box).__name__} is empty: lower, up to {low:.6g}, does not lie below upper, "
            f"down to {high:.6g}. Swap them, or clamp one by the other."
        )


def _labels(field: Field) -> None:
    labels = torch.as_tensor(field.value).detach()
    off = float((labels.abs() - 1).abs().amax()) if labels.numel() else 0.0
    if off > 1e-3:  # room for finite differences
        raise ValueError(
            f"{field} must be -1 or 1, got labels that are {off:.6g} away from both. "
            "For labels 0 and 1 pass 2 * labels - 1."
        )
