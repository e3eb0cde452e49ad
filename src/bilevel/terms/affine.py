"""Linear constraints: half-spaces, hyperplanes, affine spaces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, norm_event, sum_event, tiny
from .base import Dualizable, Proximable
from .sets import _indicator
from .threshold import flat


def inner_product(a: Tensor, x: Tensor) -> Tensor:  # -> (B, 1, ..., 1)
    return flat(a * x).sum(-1, keepdim=True)


def excess(a: Tensor, x: Tensor, offset: Tensor | float) -> Tensor:  # -> (B, 1, ..., 1)
    """t with <a, x - t a> = offset."""
    square = flat((a * a).expand_as(x)).sum(-1, keepdim=True)
    return (inner_product(a, x) - offset) / square.clamp(min=tiny(x))


def rounding(a: Tensor, x: Tensor, offset: Tensor | float) -> Tensor:  # -> (B, 1, ..., 1)
    """What <a, x> - offset may be off by, for an x that was moved there."""
    size = flat((a * x).abs())
    return 8 * eps(x) * (size.shape[-1] * size.sum(-1, keepdim=True) + abs(offset))


def _along(a: Tensor, y: Tensor, t: Tensor) -> Tensor:  # -> (B, 1, ..., 1) bool
    """Whether y = t a."""
    rest = flat((y - t * a).abs()).amax(-1, keepdim=True)
    return rest <= 64 * eps(y) * flat(y.abs()).amax(-1, keepdim=True)


def _support(t: Tensor, offset: Tensor | float, finite: Tensor) -> Tensor:  # -> (B,)
    return torch.where(finite, t * offset, torch.inf).flatten(1).sum(1)


@dataclass(frozen=True, eq=False)
class Hyperplane(Proximable, Dualizable):
    """g(x) = 0 if <normal, x> = offset, else inf.

    prox       x - (<normal, x> - offset) / |normal|^2 normal
    conjugate  t offset if y = t normal, else inf
    """

    normal: Tensor  # not 0; of the event's shape, or of x's: another one in each sample
    offset: Tensor | float = 0.0  # a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("normal", "offset")

    def value(self, x: Tensor) -> Tensor:
        off = (inner_product(self.normal, x) - self.offset).abs()
        return _indicator(off <= rounding(self.normal, x, self.offset), x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        for _ in range(2):  # the second time takes away what rounding left
            x = x - excess(self.normal, x, self.offset) * self.normal
        return x

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # along the normal, exactly
        return excess(self.normal, y, expand(step, y) * self.offset) * self.normal

    def conjugate(self, y: Tensor) -> Tensor:
        t = excess(self.normal, y, 0.0)
        return _support(t, self.offset, _along(self.normal, y, t))


@dataclass(frozen=True, eq=False)
class HalfSpace(Proximable, Dualizable):
    """g(x) = 0 if <normal, x> <= offset, else inf.

    prox       x - max(<normal, x> - offset, 0) / |normal|^2 normal
    conjugate  t offset if y = t normal with t >= 0, else inf
    at a kink (x on the boundary) the derivative returned is one of the two sides'
    """

    normal: Tensor  # not 0; of the event's shape, or of x's: another one in each sample
    offset: Tensor | float = 0.0  # a number, or (B, 1, ..., 1)

    batched: ClassVar[tuple[str, ...]] = ("normal", "offset")

    def value(self, x: Tensor) -> Tensor:
        off = inner_product(self.normal, x) - self.offset
        return _indicator(off <= rounding(self.normal, x, self.offset), x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        for _ in range(2):  # the second time takes away what rounding left
            x = x - excess(self.normal, x, self.offset).clamp(min=0) * self.normal
        return x

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # along the normal, exactly
        outside = excess(self.normal, y, expand(step, y) * self.offset).clamp(min=0)
        return outside * self.normal

    def conjugate(self, y: Tensor) -> Tensor:
        t = excess(self.normal, y, 0.0)
        return _support(t, self.offset, _along(self.normal, y, t) & (t >= 0))


@dataclass(frozen=True, eq=False)
class Affine(Proximable, Dualizable):
    """g(x) = 0 if A x = b, x taken as a vector, else inf; the rows of A are independent.

    prox       x - A^+ (A x - b), by A^T = Q R: x - Q (Q^T x - R^-T b), differentiable in A, too
    conjugate  <R^-T b, Q^T y> if y lies in the range of A^T, else inf
    cost       a QR factorisation each time, O(m^2 n): for few rows. For many, compose:
               Hyperplane, Box(b, b) or L2Ball(eps, b) @ Matrix(A)
    """

    matrix: Tensor  # A: (m, n), or (B, m, n) for another one in each sample; n the event's entries
    target: Tensor  # b: (m,), or (B, m)

    def __post_init__(self) -> None:
        a, b = self.matrix, self.target
        if not isinstance(a, Tensor) or a.ndim not in (2, 3) or a.layout != torch.strided:
            got = f"{tuple(a.shape)}, {a.layout}" if isinstance(a, Tensor) else type(a).__name__
            raise ValueError(f"Affine.matrix must be dense, (m, n) or (B, m, n), got {got}.")
        if not isinstance(b, Tensor) or b.ndim not in (1, 2) or b.shape[-1] != a.shape[-2]:
            got = f"{tuple(b.shape)}" if isinstance(b, Tensor) else type(b).__name__
            raise ValueError(
                f"Affine.target must be a tensor (m,) or (B, m) for a matrix of m = {a.shape[-2]} "
                f"rows, got {got}."
            )

    def value(self, x: Tensor) -> Tensor:
        rows, a = self._rows(x), self.matrix
        error = ((a @ rows).squeeze(-1) - self.target).abs()
        size = (a.abs() @ rows.abs()).squeeze(-1) + self.target.abs()
        slack = 8 * eps(x) * a.shape[-1] * size.amax(-1, keepdim=True)
        return _indicator(error <= slack, x)

    def prox(self, x: Tensor, step: Scalar) -> Tensor:  # step plays no part
        q, height = self._factor()
        rows = self._rows(x)
        for _ in range(2):  # the second time takes away what rounding left
            rows = rows - q @ (q.mT @ rows)
        return (rows + q @ height).reshape(x.shape)

    def prox_conjugate(self, y: Tensor, step: Scalar) -> Tensor:  # in the range of A^T, exactly
        q, height = self._factor()
        s = step.reshape(-1, 1, 1) if isinstance(step, Tensor) and step.ndim else step
        return (q @ (q.mT @ self._rows(y) - s * height)).reshape(y.shape)

    def conjugate(self, y: Tensor) -> Tensor:
        q, height = self._factor()
        rows = self._rows(y)
        part = q.mT @ rows
        rest = norm_event(rows - q @ part)
        value = sum_event(height * part)
        return value.masked_fill(rest > 64 * eps(y) * norm_event(rows), torch.inf)

    def _factor(self) -> tuple[Tensor, Tensor]:  # Q: (n, m) or (B, n, m); R^-T b: (m, 1), (B, m, 1)
        q, r = torch.linalg.qr(self.matrix.mT)
        return q, torch.linalg.solve_triangular(r.mT, self.target.unsqueeze(-1), upper=False)

    def _rows(self, x: Tensor) -> Tensor:  # (B, n, 1)
        n, own = self.matrix.shape[-1], [len(t) for t in self._own()]
        if x[0:1].numel() != n * min(len(x), 1) or any(size not in (1, len(x)) for size in own):
            raise ValueError(
                f"Affine.matrix has shape {tuple(self.matrix.shape)}, target "
                f"{tuple(self.target.shape)}, x {tuple(x.shape)}: one column for each entry of a "
                "sample is needed, and one matrix or target for all samples or one for each."
            )
        return x.reshape(len(x), n, 1)

    def _own(self) -> list[Tensor]:
        """Those that are one for each sample."""
        return [t for t, rank in ((self.matrix, 3), (self.target, 2)) if t.ndim == rank]

    def take(self, index: Tensor, x: Tensor) -> Self:
        a, b = self.matrix, self.target
        return replace(
            self,
            matrix=a[index] if a.ndim == 3 and len(a) == len(x) else a,
            target=b[index] if b.ndim == 2 and len(b) == len(x) else b,
        )
