"""Numbers that are one per sample.

Three kinds of tensor broadcast against an x of shape (B, *event), told apart by their rank:
rank 0 is shared by all samples, rank 1 inside the library is one number a sample (steps, norms,
gaps), and the rank of x carries the batch in dim 0. Shape alone could not tell (1, n) from (B, n);
rank can.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

Scalar = Tensor | float  # a float, a 0-dim tensor, or one number a sample: (B,)


def expand(scalar: Scalar, like: Tensor) -> Scalar:  # (B,) -> (B, 1, ..., 1)
    """A per-sample number, shaped to broadcast against `like`; anything else as it is."""
    if isinstance(scalar, Tensor) and scalar.ndim == 1:
        return scalar.reshape(-1, *[1] * (like.ndim - 1))
    return scalar


def axpy(t: Scalar, d: Tensor, x: Tensor) -> Tensor:
    """x + t d in one pass; t as in `expand`."""
    if isinstance(t, Tensor):
        return torch.addcmul(x, expand(t, x), d)  # type: ignore[arg-type]
    return torch.add(x, d, alpha=t)


def carries_batch(value: object, x: Tensor) -> bool:
    """Whether a tensor that broadcasts against x holds one entry a sample."""
    return isinstance(value, Tensor) and value.ndim == x.ndim and value.shape[0] == len(x)


def largest(weight: Scalar, x: Tensor) -> Scalar:
    """max of a weight over the event: (B,) where it carries the batch, else one number."""
    if not isinstance(weight, Tensor):
        return weight
    weight = weight.detach()
    if weight.ndim == 0:
        return weight
    return weight.flatten(1).amax(1) if carries_batch(weight, x) else weight.amax()


def smallest(weight: Scalar, x: Tensor) -> Scalar:
    """min of a weight over the event, as `largest`."""
    return -largest(-weight, x)


def like(value: Scalar, x: Tensor) -> Tensor:
    """A number as a tensor of x's dtype and device, a tensor with its history."""
    return torch.as_tensor(value, dtype=x.dtype, device=x.device)


def larger(a: Scalar, b: Scalar) -> Scalar:
    """The larger of two numbers, sample by sample."""
    if not isinstance(a, Tensor) and not isinstance(b, Tensor):
        return max(a, b)
    x: Tensor = a if isinstance(a, Tensor) else b  # type: ignore[assignment]
    return torch.maximum(like(a, x), like(b, x))


def sum_event(density: Tensor) -> Tensor:  # (B, *event) -> (B,)
    return density.flatten(1).sum(1)


def norm_event(x: Tensor) -> Tensor:  # (B, *event) -> (B,)
    return torch.linalg.vector_norm(x.flatten(1), dim=1)


def norm_parts(parts: Sequence[Tensor]) -> Tensor:  # -> (B,)
    """Of all of them together."""
    return torch.stack([norm_event(part).square() for part in parts]).sum(0).sqrt()


def difference(a: Sequence[Tensor], b: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(p - q for p, q in zip(a, b, strict=True))


def inner(x: Tensor, y: Tensor) -> Tensor:  # (B, *event) -> (B,)
    """Real for complex numbers too: a pair of reals each."""
    product = (x * y.conj()).real if y.is_complex() else x * y
    return sum_event(product)


def tiny(x: Tensor) -> float:
    return torch.finfo(x.dtype).tiny


def eps(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps


def binary_unit(v: Tensor, length: Tensor) -> Tensor | None:  # (B, *event), (B,) -> (B,)
    """Powers of two by which to divide what has this length before its squares under- or overflow;
    None: none would. Nothing is rounded."""
    if bool(((length > 1e-9) & (length < 1e15)).all()) or not v.numel():
        return None
    size = v.flatten(1).abs().amax(1)
    size = torch.where((size > 0) & size.isfinite(), size, 1.0)
    return size / (2 * torch.frexp(size).mantissa)


def settled(change: Tensor, size: Tensor) -> Tensor:
    """Whether what has this size has changed by no more than rounding may have added up to."""
    return change <= 32 * eps(change) * size
