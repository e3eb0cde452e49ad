"""The boundary: everything the user gave is looked at once, before iterating."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass

import torch
from torch import Tensor

from .problem import Problem
from .terms.base import Term


def as_problem(energy: Problem | Term) -> Problem:
    if isinstance(energy, Problem):
        return energy
    if isinstance(energy, Term):
        return Problem((energy,))
    raise TypeError(
        f"an energy is a sum of terms, such as LeastSquares(y) + 0.1 * TotalVariation(), got {type(energy).__name__}. "
        "Wrap a function of x as Potential(function)."
    )


def tensors(value: object, path: str = "") -> Iterator[tuple[str, Tensor | float]]:
    """Every number a term or operator was built from, with its name: ('LeastSquares.target',
    tensor)."""
    if isinstance(value, Tensor | float | int) and not isinstance(value, bool):
        yield path, value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from tensors(getattr(value, f.name), f"{type(value).__name__}.{f.name}")
    elif isinstance(value, tuple):
        for item in value:
            yield from tensors(item, path)


def start(problem: Problem, x0: Tensor | None) -> Tensor:
    """x0 as given, or from the data; of the shape (B, *event)."""
    if x0 is None:
        x0 = problem.guess()
    if x0 is None:
        named = " + ".join(type(t).__name__ for t in problem.terms)
        raise ValueError(
            f"the shape of x cannot be told from {named}. Pass x0 of shape (B, *event), torch.zeros(1, n) say."
        )
    if not isinstance(x0, Tensor):
        raise TypeError(
            f"x0 must be a torch tensor, got {type(x0).__name__}. Use torch.as_tensor(x0)."
        )
    if x0.ndim < 2:
        raise ValueError(
            f"x0 has shape {tuple(x0.shape)}: dim 0 must be the batch. For one problem pass x0[None]."
        )
    return x0.detach()


def check(problem: Problem, x0: Tensor) -> None:
    """Shapes, dtypes, devices and values of everything the problem was built from."""
    _dtype("x0", x0)
    if not bool(x0.isfinite().all()):
        raise ValueError(
            f"x0 has {int((~x0.isfinite()).sum())} values that are NaN or inf. Clean the data first."
        )
    for name, value in (pair for term in problem.terms for pair in tensors(term)):
        if isinstance(value, Tensor):
            _tensor(name, value, x0)
        _value(name, value)
    if len(x0):
        _values(problem, x0)


def _dtype(name: str, value: Tensor) -> None:
    if value.is_complex():
        raise TypeError(
            f"{name} is complex ({value.dtype}): complex unknowns are not supported yet."
        )
    if not value.is_floating_point():
        raise TypeError(
            f"{name} has dtype {value.dtype}: floating point is needed. Convert it, image.float() / 255 say."
        )


def _tensor(name: str, value: Tensor, x0: Tensor) -> None:
    _dtype(name, value)
    if value.device != x0.device and value.ndim:
        raise ValueError(
            f"{name} is on {value.device}, x on {x0.device}. Move one: {name.split('.')[-1]}.to(x.device)."
        )
    if value.dtype != x0.dtype and value.ndim:
        raise TypeError(
            f"{name} has dtype {value.dtype}, x has {x0.dtype}. Convert one: {name.split('.')[-1]}.to(x.dtype)."
        )


_BOUNDS = ("lower", "upper")  # may be infinite
_SIGNED = {
    "weight": "a weight must be >= 0",
    "radius": "a radius must be >= 0",
    "delta": "delta must be > 0",
}


def _value(name: str, value: Tensor | float) -> None:
    field = name.split(".")[-1]
    number = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
    if number.layout != torch.strided:
        number = number.coalesce().values()
    bad = number.isnan() if field in _BOUNDS else ~number.isfinite()
    if bool(bad.any()):
        raise ValueError(
            f"{name} has {int(bad.sum())} values that are NaN or inf. Clean the data first."
        )
    if (
        field in _SIGNED
        and number.numel()
        and bool((number <= 0 if field == "delta" else number < 0).any())
    ):
        raise ValueError(
            f"{name} = {float(number.min()):.6g}: {_SIGNED[field]}. "
            "To keep a learned one positive, learn its logarithm: log_weight.exp() * term."
        )


def _values(problem: Problem, x0: Tensor) -> None:
    """Each term is evaluated once: wrong shapes show here, with the term's name."""
    for term in problem.terms:
        name = type(term).__name__
        try:
            with torch.no_grad():
                value = term.value(x0)
        except RuntimeError as error:
            raise ValueError(
                f"{name} cannot be evaluated at x of shape {tuple(x0.shape)}: {error}. Every tensor must broadcast "
                "against (B, *event): per sample is (B, 1, ...), a 1-D weight is per feature."
            ) from error
        if value.shape != (len(x0),):
            raise ValueError(
                f"{name} has a value of shape {tuple(value.shape)} at x of shape {tuple(x0.shape)}, ({len(x0)},) is "
                "needed: one number a sample. Every tensor must broadcast against (B, *event)."
            )
