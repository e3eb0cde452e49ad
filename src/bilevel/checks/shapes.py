"""What each term makes of x: no field may enlarge it, and there is one value a sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor

from ..terms.base import Weighted
from ..terms.composition import Composition, SmoothComposition
from ..terms.envelopes import MoreauEnvelope
from ..terms.matrices import matrix_singular_values
from ..terms.norms import L1, ElasticNet
from ..terms.sets import Box, L2Ball, NonNegative, Simplex
from ..terms.singular_values import SingularValues
from ..terms.smooth import Huber, LeastSquares, Logistic, Potential
from ..terms.total_variation import TotalVariation, TotalVariation1D
from ..terms.wrapped import Anchored, Orthogonal, Separable
from .fields import Field
from .sets import check_set

# Known without an evaluation: a density of x's shape; one value a sample.
_POINTWISE = (LeastSquares, Huber, Logistic, L1, ElasticNet)
_SETS = (Box, NonNegative, Simplex, L2Ball)
# of size 1 along the term's dim, or over the whole event
_REDUCED = ("radius", "total", "offset", "smoothing", "strength")


def check_shapes(term: Any, x: Tensor, label: str) -> None:
    """Evaluate the term once at x, as far as its shapes are not known."""
    dim = getattr(term, "dim", None)
    dims = [d for d in (dim if isinstance(dim, tuple) else (dim,)) if isinstance(d, int)]
    if any(not -x.ndim <= d < x.ndim or d % x.ndim == 0 for d in dims):
        raise ValueError(
            f"{label} has dim={dim} at x of shape {tuple(x.shape)}: it must name a dim of the "
            f"event, 1 to {x.ndim - 1} or {1 - x.ndim} to -1. Dim 0 is the batch."
        )
    term.check(x)
    for part, seen in _inside(term, x, label):
        check_shapes(part, seen, label)
    for name in getattr(term, "batched", ()):
        if name != "weight":
            _fits(term, name, _room(name, None if name in _whole(term) else dim, x), x)
    check_set(term, x)
    if isinstance(term, SmoothComposition | Composition):
        return
    if isinstance(getattr(term, "target", None), Tensor) and not x.is_complex():
        _real_data(term, label)
    if isinstance(term, Weighted):
        shape = _known(term, x) or _density(term, x, label)
        _fits(term, "weight", shape, x)
        if len(shape) == x.ndim and shape[0] == len(x):
            return
    if type(term) in _SETS:
        return
    value = _evaluate(term.value, x, label)
    if value.shape != (len(x),):
        raise ValueError(
            f"{label} has a value of shape {tuple(value.shape)} at x of shape {tuple(x.shape)}: "
            f"one number a sample is needed, ({len(x)},). Sum over all dims but the first."
        )


def _complex_range(term: Any, image: Tensor, x: Tensor, label: str) -> None:
    """The image of x is complex: can the term take it, and does the adjoint lead back to x?"""
    if not isinstance(term.outer, LeastSquares | Potential):
        raise TypeError(
            f"{label}: {type(term.outer).__name__} takes real numbers, got the complex range of "
            f"{type(term.operator).__name__}. Take them as pairs, {type(term.outer).__name__}(...) "
            "@ AsReal() @ operator."
        )
    if not x.is_complex() and _evaluate(term.operator.adjoint, image, label).is_complex():
        raise TypeError(
            f"{label}: x is real and {type(term.operator).__name__}.adjoint gives complex numbers. "
            "For a real image use FFT(), which takes the real part; for a complex one solve for "
            "pairs of reals, operator @ AsComplex(), with x of shape (B, ..., 2)."
        )


def _real_data(term: Any, label: str) -> None:
    if term.target.is_complex():
        raise TypeError(
            f"{label}: the target is complex where x, or the operator's range, is real. Name the "
            "operator that makes complex numbers of x, LeastSquares(data) @ FFT(), or pass "
            "torch.view_as_real(target)."
        )


@singledispatch
def _inside(term: Any, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    """The terms that a term is made of, with what they see of x."""
    return []


@_inside.register
def _(term: SmoothComposition | Composition, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    alike = type(term.outer) in _POINTWISE  # asked for its shape only
    image = _evaluate(term.operator.rest if alike else term.operator, x, label)
    if image.is_complex():
        _complex_range(term, image, x, label)
    return [(term.outer, image)]


@_inside.register
def _(term: Orthogonal, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    return [(term.term, _evaluate(term.operator, x, label))]


@_inside.register
def _(term: MoreauEnvelope | Anchored, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    return [(term.term, x)]


@_inside.register
def _(term: SingularValues, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    return [(term.penalty, matrix_singular_values(x))]


@_inside.register
def _(term: Separable, x: Tensor, label: str) -> list[tuple[Any, Tensor]]:
    return list(zip(term.terms, term.parts(x), strict=True))


def _known(term: Any, x: Tensor) -> tuple[int, ...] | None:
    """The shape of the density, where no evaluation is needed to tell it."""
    kind, shape = type(term), tuple(x.shape)
    if kind in _POINTWISE or (kind is TotalVariation and x.ndim > term.dims and not term.coupled):
        return shape
    return (*shape[:-1], shape[-1] - 1) if kind is TotalVariation1D else None


def _density(term: Any, x: Tensor, label: str) -> tuple[int, ...]:
    density = _evaluate(term.density, x, label)
    if isinstance(term, Potential) and not bool(density.isfinite().all()):
        raise ValueError(
            f"{label} is NaN or inf at the start, in {int((~density.isfinite()).sum())} of "
            f"{len(x)} samples. Pass an x0 inside its domain."
        )
    return tuple(density.shape)


def _whole(term: Any) -> tuple[str, ...]:
    """Fields that hold one number a sample although the term has a dim."""
    return getattr(term, "per_sample", ())


def _room(name: str, dim: Any, x: Tensor) -> tuple[int, ...]:
    """The shape that the field must broadcast into."""
    if name not in _REDUCED:
        return tuple(x.shape)
    if dim is None:
        return (len(x), *[1] * (x.ndim - 1))
    return tuple(1 if i == dim % x.ndim else n for i, n in enumerate(x.shape))


def _fits(term: Any, name: str, room: tuple[int, ...], x: Tensor) -> None:
    """The field broadcasts into `room` without enlarging it."""
    value = getattr(term, name)
    if not isinstance(value, Tensor) or not value.ndim or value.shape == room:
        return
    shape = tuple(value.shape)
    pairs = zip(reversed(shape), reversed(room), strict=False)
    if len(shape) <= len(room) and all(a == 1 or a == b for a, b in pairs):
        return
    if shape == (len(x),):
        ones = ", ".join(["-1"] + ["1"] * (x.ndim - 1))
        advice = f"One number a sample is {name}.reshape({ones})."
    elif len(shape) == x.ndim and len(x) == 1 and shape[0] > 1:
        advice = f"x has a batch of 1: expand the data, or x0, to a batch of {shape[0]}."
    else:
        advice = "Per sample is (B, 1, ...) with x's number of dims, 1-D is per feature."
    raise ValueError(
        f"{Field(term, name, value)} has shape {shape}, which does not broadcast into {room}, at x "
        f"of shape {tuple(x.shape)}. {advice}"
    )


def _evaluate(function: Callable[[Tensor], Tensor], x: Tensor, label: str) -> Tensor:
    try:
        return function(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{label} cannot be evaluated at x of shape {tuple(x.shape)}: {error}. Do its shapes, "
            "dtype and device fit x?"
        ) from error
