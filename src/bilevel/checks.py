"""The boundary: everything the user gave is looked at once, before iterating.

On the good path this costs one `aminmax` a tensor, one read-back for all of them, and one evaluation
of each term at x0, for its shapes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from numbers import Integral, Real
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .errors import check_on_fail
from .operators.base import Operator
from .problem import Problem
from .terms.base import Composed, Proximable, Smooth, Term, Weighted
from .terms.composition import Composition, SmoothComposition

_BOUNDS = ("lower", "upper")  # may be infinite
_REDUCED = ("radius", "total")  # of size 1 along the term's dim, or over the whole event
_SINGLE = (torch.float32, torch.float64)
_DOMAIN: dict[str, tuple[Callable[[float, float], bool], str]] = {
    "weight": (lambda low, high: low >= 0, "a weight must be >= 0"),
    "constant": (lambda low, high: low >= 0, "a Lipschitz constant must be >= 0"),
    "radius": (lambda low, high: low >= 0, "a radius must be >= 0, or the set is empty"),
    "delta": (lambda low, high: low > 0, "delta must be > 0"),
    "total": (lambda low, high: low > 0, "a total must be > 0, or the simplex is empty"),
    "ratio": (lambda low, high: 0 <= low and high <= 1, "a ratio must lie between 0 and 1"),
}


class Field(NamedTuple):
    owner: object  # a term or an operator; None for x0
    name: str
    value: Any

    def __str__(self) -> str:
        return self.name if self.owner is None else f"{type(self.owner).__name__}.{self.name}"


def boundary(energy: Problem | Term, x0: Tensor | None) -> tuple[Problem, Tensor]:
    """(problem, start of shape (B, *event)), or an error that says what to do."""
    problem = _problem(energy)
    found = [field for term in problem.terms for field in _fields(term)]
    given = [] if x0 is None else [Field(None, "x0", x0)]
    _kinds(given + found)
    start = _start(problem, found) if x0 is None else x0
    if start.ndim < 2:
        raise ValueError(
            f"x0 has shape {tuple(start.shape)}: dim 0 must be the batch. "
            "For one problem pass x0[None]."
        )
    if not start.shape[1:].numel():
        raise ValueError(
            f"x has shape {tuple(start.shape)}: each sample is empty, there is nothing to minimise "
            "over. An empty batch, (0, *event), is allowed."
        )
    _values(given + found, start)
    if len(start):
        for term in problem.terms:
            _shapes(term, start, named(term))
    return problem, start.detach()


def modes() -> None:
    """Refuse the ways of differentiating that would fail inside, or be wrong in silence."""
    if torch._C._functorch.peek_interpreter_stack() is not None:  # type: ignore[attr-defined]
        raise RuntimeError(
            "argmin and solve cannot run inside torch.func transforms (vmap, grad, jacrev): their "
            "loop stops by itself. Use torch.autograd.grad or torch.autograd.functional; batches "
            "go to dim 0 of x."
        )
    if torch.autograd.forward_ad._current_level >= 0:
        raise RuntimeError(
            "argmin and solve have no forward-mode derivative: inside forward_ad.dual_level() the "
            "tangents would be lost. Use reverse mode, torch.autograd.grad."
        )


def options(*, tol, max_iter, max_time, on_fail, **kinds: tuple[object, type]) -> None:
    """The loop's options; `kinds`: name=(value, class), the value an instance of it or None."""
    for name, (value, kind) in kinds.items():
        _instance(name, value, kind)
    check_on_fail(on_fail)
    if tol is not None and not (isinstance(tol, Real) and 0 < tol < 1):
        raise (ValueError if isinstance(tol, Real) else TypeError)(
            f"tol must be a number between 0 and 1, got {tol!r}: a relative gap or residual."
        )
    if not isinstance(max_iter, Integral) or max_iter < 1:
        raise (ValueError if isinstance(max_iter, Integral) else TypeError)(
            f"max_iter must be a whole number, at least 1, got {max_iter!r}."
        )
    if max_time is not None and not (isinstance(max_time, Real) and max_time > 0):
        raise (ValueError if isinstance(max_time, Real) else TypeError)(
            f"max_time must be a number of seconds > 0, or None for no limit, got {max_time!r}."
        )


def _instance(name: str, value: object, kind: type) -> None:
    if value is None or isinstance(value, kind):
        return
    if isinstance(value, type) and issubclass(value, kind):
        raise TypeError(
            f"{name} is the class {value.__name__}, an instance is needed. "
            f"Write {name}={value.__name__}(...)."
        )
    raise TypeError(
        f"{name} must be a {kind.__name__}, got {type(value).__name__} ({value!r}). "
        f"The library's are listed in the docs under {kind.__name__}."
    )


def named(term: object) -> str:
    """How the user wrote it: 'LeastSquares @ Matrix'."""
    if isinstance(term, SmoothComposition | Composition):
        return f"{named(term.outer)} @ {type(term.operator).__name__}"
    return type(term).__name__


def _problem(energy: object) -> Problem:
    if isinstance(energy, Term):
        energy = Problem((energy,))
    if not isinstance(energy, Problem):
        raise TypeError(
            "an energy is a sum of terms, such as LeastSquares(y) + 0.1 * TotalVariation(), got "
            f"{type(energy).__name__}. Wrap a function of x as Potential(function)."
        )
    for term in energy.terms:
        if not isinstance(term, Smooth | Proximable | Composed):
            raise TypeError(
                f"{type(term).__name__} offers neither a gradient nor a prox, so no solver can use "
                "it. Let it inherit Smooth (the gradient is autograd's of value), or Proximable."
            )
    return energy


def _fields(value: object) -> Iterator[Field]:
    """Every field of a term or operator, and of those that it is composed of."""
    if not is_dataclass(value):
        return
    for f in fields(value):
        item = getattr(value, f.name)
        for part in item if isinstance(item, tuple) else (item,):
            if isinstance(part, Term | Operator):
                yield from _fields(part)
            else:
                yield Field(value, f.name, part)


def _start(problem: Problem, found: list[Field]) -> Tensor:
    """A start from the data, which tell the shape of x."""
    guess = problem.guess()
    if guess is not None:
        return guess
    for field in found:
        if field.name in getattr(field.owner, "batched", ()) and field.name != "weight":
            if isinstance(field.value, Tensor) and field.value.ndim == 1:
                raise ValueError(
                    f"{field} has shape {tuple(field.value.shape)}: dim 0 must be the batch. For "
                    f"one problem pass {field.name}[None]; for data that all samples share pass x0."
                )
    raise ValueError(
        f"the shape of x cannot be told from {' + '.join(named(t) for t in problem.terms)}. "
        "Pass x0 of shape (B, *event), torch.zeros(1, n) say."
    )


def _kinds(found: list[Field]) -> None:
    """Tensors and numbers, of one dtype, on one device, dense."""
    like: Field | None = None
    for field in found:
        value = field.value
        if isinstance(value, Tensor):
            if value.is_meta or value.is_nested or value.layout != torch.strided:
                _storage(field)
            if not value.ndim:  # promotes to x's dtype and is copied to x's device
                if value.is_complex():
                    _dtype(field)
                continue
            if value.dtype not in _SINGLE:
                _dtype(field)
            like = like or field
            if value.dtype != like.value.dtype:
                raise TypeError(
                    f"{field} has dtype {value.dtype}, {like} has {like.value.dtype}. "
                    f"Convert one: {field.name}.to({like.value.dtype})."
                )
            if value.device != like.value.device:
                raise ValueError(
                    f"{field} is on {value.device}, {like} on {like.value.device}. "
                    f"Move one: {field.name}.to({str(like.value.device)!r})."
                )
        elif field.owner is None or field.name in getattr(field.owner, "batched", ()):
            if not isinstance(value, Real) or field.owner is None:
                raise TypeError(
                    f"{field} must be a torch tensor{' or a number' if field.owner else ''}, got "
                    f"{type(value).__name__}. Use torch.as_tensor({field.name})."
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
            f"{field} is complex ({dtype}): complex unknowns are not supported yet. "
            f"Use torch.view_as_real({name}), or its real part."
        )
    if not dtype.is_floating_point:
        raise TypeError(
            f"{field} has dtype {dtype}: floating point is needed. Convert it, {name}.float(), "
            "and for an 8-bit image divide by 255."
        )
    raise TypeError(
        f"{field} has dtype {dtype}, too coarse to solve in: float32 or float64 is needed. "
        f"Convert it, {name}.float()."
    )


def _values(found: list[Field], x: Tensor) -> None:
    """NaN, inf, signs, magnitudes."""
    tensors = [f for f in found if isinstance(f.value, Tensor) and f.value.numel()]
    for field, ends in zip(tensors, _ends([f.value for f in tensors], x), strict=True):
        _value(field, *ends, x.dtype)
    for field in found:
        if isinstance(field.value, Real):
            _value(field, float(field.value), float(field.value), x.dtype)
        if field.name == "upper":
            _order(field.owner)
        elif field.name == "labels":
            _labels(field)


def _ends(tensors: list[Tensor], x: Tensor) -> list[tuple[float, float]]:
    """(min, max) of each, NaN where there is one; read back at once."""
    with torch.no_grad():
        dense = [t if t.layout == torch.strided else t.coalesce().values() for t in tensors]
        ends = [end for t in dense for end in (torch.aminmax(t) if t.numel() else (x.new_zeros(()),) * 2)]
        cpu = x.device.type == "cpu"
        numbers = [e.item() for e in ends] if cpu else torch.stack([e.to(x) for e in ends]).tolist()
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _value(field: Field, low: float, high: float, dtype: torch.dtype) -> None:
    name, value = field.name, field.value
    if low != low or (name not in _BOUNDS and (low == -math.inf or high == math.inf)):
        numbers = torch.as_tensor(value).detach()
        numbers = numbers.coalesce().values() if numbers.layout != torch.strided else numbers
        bad = int((~numbers.isfinite()).sum())
        raise ValueError(
            f"{field} has {bad} values that are NaN or inf, of {numbers.numel()}. "
            "Clean the data first."
        )
    if name in _DOMAIN:
        test, rule = _DOMAIN[name]
        if not test(low, high):
            raise ValueError(
                f"{field} = {low if low == high else f'{low:.6g} ... {high:.6g}'}: {rule}. To keep "
                f"a learned one inside, learn its logarithm: log_{name}.exp()."
                if name != "ratio"
                else f"{field} = {low:.6g} ... {high:.6g}: {rule}. To keep a learned one inside, "
                "learn its logit: logit.sigmoid()."
            )
    size = max(abs(low), abs(high))
    scales = isinstance(field.owner, Operator) or (name == "weight" and isinstance(field.owner, Smooth))
    limits = torch.finfo(dtype)
    if size > 1e-3 * limits.max**0.5 and (scales or name in ("x0", "target", "center")):
        raise ValueError(
            f"{field} has a value of size {size:.1e}: its square overflows {dtype}. "
            "Rescale the problem, or use float64."
        )
    if scales and 0 < size < 1e3 * limits.tiny**0.5:
        raise ValueError(
            f"{field} is at most {size:.1e}: its square underflows {dtype}. "
            "Rescale the problem, or use float64."
        )


def _order(box: Any) -> None:
    """lower <= upper."""
    lower, upper = box.lower, box.upper
    wrong = lower > upper
    if isinstance(wrong, Tensor):
        wrong = bool(wrong.any())
    if wrong or _most(lower, -1) == math.inf or _most(upper, 1) == -math.inf:
        raise ValueError(
            f"{type(box).__name__} is empty: lower > upper somewhere, or lower = inf, or upper = "
            f"-inf; got lower up to {_most(lower, -1):.6g} and upper down to {_most(upper, 1):.6g}."
        )


def _most(value: Tensor | float, sign: int) -> float:  # sign 1: the least, -1: the largest
    return sign * float((sign * torch.as_tensor(value).detach()).min())


def _labels(field: Field) -> None:
    off = (field.value.detach().abs() - 1).abs().amax() if field.value.numel() else 0.0
    if off > 1e-3:  # room for finite differences in the labels
        raise ValueError(
            f"{field} must be -1 or 1, got a label {float(off):.6g} away from both. "
            "For labels 0 and 1 pass 2 * labels - 1."
        )


def _shapes(term: Any, x: Tensor, label: str) -> None:
    """No field of the term enlarges x, and the term has one value a sample."""
    dim = getattr(term, "dim", None)
    if isinstance(dim, int) and (not -x.ndim <= dim < x.ndim or dim % x.ndim == 0):
        raise ValueError(
            f"{label} has dim={dim}, x has shape {tuple(x.shape)}: dim must name a dim of the "
            f"event, 1 to {x.ndim - 1} or {1 - x.ndim} to -1; dim 0 is the batch."
        )
    for name in getattr(term, "batched", ()):
        if name != "weight":
            _fits(Field(term, name, getattr(term, name)), _room(term, name, x), x)
    if isinstance(term, SmoothComposition | Composition):
        image = _evaluate(term.operator, x, label)
        return _shapes(term.outer, image, label)
    if isinstance(term, Weighted):
        density = _evaluate(term.density, x, label)
        _fits(Field(term, "weight", term.weight), density.shape, x)
        if type(term).value is Weighted.value and density.ndim == x.ndim and len(density) == len(x):
            return None
    value = _evaluate(term.value, x, label)
    if value.shape != (len(x),):
        raise ValueError(
            f"{label} has a value of shape {tuple(value.shape)} at x of shape {tuple(x.shape)}: "
            f"one number a sample is needed, ({len(x)},). Sum over all dims but the first."
        )
    return None


def _room(term: Any, name: str, x: Tensor) -> tuple[int, ...]:
    """The shape that the field must broadcast into."""
    if name not in _REDUCED:
        return tuple(x.shape)
    dim = getattr(term, "dim", None)
    if dim is None:
        return (len(x), *[1] * (x.ndim - 1))
    return tuple(1 if i == dim % x.ndim else n for i, n in enumerate(x.shape))


def _fits(field: Field, room: tuple[int, ...], x: Tensor) -> None:
    if not isinstance(field.value, Tensor):
        return
    shape = tuple(field.value.shape)
    pairs = zip(reversed(shape), reversed(room), strict=False)
    if len(shape) <= len(room) and all(a == 1 or a == b for a, b in pairs):
        return
    if shape == (len(x),):
        advice = f"One number a sample is {field.name}.reshape({', '.join(['-1'] + ['1'] * (x.ndim - 1))})."
    elif len(shape) == x.ndim and len(x) == 1 and shape[0] > 1:
        advice = f"For {shape[0]} problems with the same data, expand the data to a batch of {shape[0]}."
    else:
        advice = "Per sample is (B, 1, ...) with x's number of dims, 1-D is per feature."
    raise ValueError(
        f"{field} has shape {shape}, which does not broadcast into {tuple(room)} at x of shape "
        f"{tuple(x.shape)}. {advice}"
    )


def _evaluate(function: Callable[[Tensor], Tensor], x: Tensor, label: str) -> Tensor:
    try:
        with torch.no_grad():
            return function(x)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, IndexError) as error:
        raise ValueError(
            f"{label} cannot be evaluated at x of shape {tuple(x.shape)}: {error}. Do its shapes, "
            "dtype and device fit x?"
        ) from error
