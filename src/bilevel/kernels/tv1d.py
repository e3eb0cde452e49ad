"""The prox of 1-D total variation as a tensor with derivatives of every order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function

from .compiled import over_rows
from .segments import pull, push
from .taut_string import solve

_Fields = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def prox(x: Tensor, w: Tensor) -> Tensor:  # (R, n), (1 or R, 1 or n - 1) -> (R, n)
    """argmin 1/2 |u - x|^2 + sum_k w_k |u_{k+1} - u_k|, row by row.

    On the CPU: rows that lie elsewhere are copied there and back.
    """
    tracked = torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)
    if tracked or torch.autograd.forward_ad._current_level >= 0:
        return _Prox.apply(x, w)  # type: ignore[return-value]
    return _solve(x, w)[0]


def segments(x: Tensor, w: Tensor) -> Tensor:  # (R, n), (1 or R, 1 or n - 1) -> (R,)
    """The number of segments of each row of the prox."""
    return torch.from_numpy(_solve(x, w)[1][-1]).to(x.device)


@dataclass(frozen=True, eq=False)
class _Segments:
    """Where the solution is constant, and the two products with its derivative."""

    ends: np.ndarray  # the last sample of each segment
    signs: np.ndarray  # of the jump behind it
    first: np.ndarray  # (R,): the place of a row's first segment
    count: np.ndarray  # (R,)
    weights: Tensor  # (1 or R, 1 or n - 1)

    @property
    def _fields(self) -> _Fields:
        return self.ends, self.signs, self.first, self.count

    def push(self, dx: Tensor, dw: Tensor) -> Tensor:
        """du/dx dx + du/dw dw."""
        du = np.empty_like(source := _array(dx))
        weights = _array(dw).astype(np.float64, copy=False)
        over_rows(push, *du.shape, *self._fields, source, weights, du)
        return _tensor(du, dx)

    def pull(self, g: Tensor) -> tuple[Tensor, Tensor]:
        """(du/dx)* g and (du/dw)* g."""
        gx = np.empty_like(source := _array(g))
        gw = np.empty((len(gx), self.weights.shape[1]))
        over_rows(pull, *gx.shape, *self._fields, source, gx, gw)
        each = torch.from_numpy(gw)
        each = each if len(self.weights) == len(gx) else each.sum(0, keepdim=True)
        return _tensor(gx, g), each.to(self.weights)


def _solve(x: Tensor, w: Tensor) -> tuple[Tensor, _Fields]:
    """(u, the first four fields of its segments)."""
    rows, n = x.shape
    u = np.empty_like(source := _array(x))
    weights = _array(w).astype(np.float64, copy=False)
    # room for as many segments as samples: memory that is not touched costs nothing
    ends, signs = np.empty(rows * n, np.int32), np.empty(rows * n, np.int8)
    fields = ends, signs, np.empty(rows, np.int64), np.empty(rows, np.int64)
    over_rows(solve, rows, n, source, weights, u, *fields)
    return _tensor(u, x), fields


def _array(x: Tensor) -> np.ndarray:
    """In C order and float32 or float64; without a copy where it is that already."""
    if x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    return np.ascontiguousarray(x.numpy(force=True))


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like)


class _Prox(Function):
    """u(x, w): piecewise linear, so that its derivative is constant, and its second one zero."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        u, fields = _solve(x, w)
        ctx.segments = _Segments(*fields, w.detach())
        return u

    @staticmethod
    def jvp(ctx, dx: Tensor, dw: Tensor) -> Tensor:  # type: ignore[override]
        return _Push.apply(ctx.segments, dx, dw)  # type: ignore[return-value]

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        again = torch.is_grad_enabled() or torch.autograd.forward_ad._current_level >= 0
        return _Pull.apply(ctx.segments, g) if again else ctx.segments.pull(g)


class _Push(Function):
    """(dx, dw) -> du, linear; its transpose is _Pull."""

    @staticmethod
    def forward(ctx, segments: _Segments, dx: Tensor, dw: Tensor) -> Tensor:
        ctx.segments = segments
        return segments.push(dx, dw)

    @staticmethod
    def jvp(ctx, _, dx: Tensor, dw: Tensor) -> Tensor:  # type: ignore[override]
        return _Push.apply(ctx.segments, dx, dw)  # type: ignore[return-value]

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        return None, *_Pull.apply(ctx.segments, g)  # type: ignore[misc]


class _Pull(Function):
    """g -> (gx, gw), linear; its transpose is _Push."""

    @staticmethod
    def forward(ctx, segments: _Segments, g: Tensor) -> tuple[Tensor, Tensor]:
        ctx.segments = segments
        return segments.pull(g)

    @staticmethod
    def jvp(ctx, _, g: Tensor):  # type: ignore[override]
        return _Pull.apply(ctx.segments, g)

    @staticmethod
    def backward(ctx, dx: Tensor, dw: Tensor):  # type: ignore[override]
        return None, _Push.apply(ctx.segments, dx, dw)
