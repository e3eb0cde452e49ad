"""Any penalty on the singular values: low rank without the bias of the nuclear norm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._broadcast import Scalar, eps
from .base import Proximable
from .divided_differences import Rectangular, pairs
from .matrices import matrix_singular_values, slack
from .spectral import singular
from .wrapped import needs_prox


@dataclass(frozen=True, eq=False)
class SingularValues(Proximable):
    """g(x) = penalty(s), s the singular values of each matrix (the last two dims).

    The penalty sees s as (B, ..., m, 1) and must not tell entries, or signs, apart: MCP, SCAD,
    LogSum, L0; SparseEnvelope(r), the quadratic envelope of {rank <= r}, for one matrix a sample.
    prox  U diag(prox of the penalty at s) V^T, a global minimiser [1]
    mu    the penalty's [1]
    at a kink the derivative is that of the penalty's prox; repeated singular values are none. The
    second derivative is refused where singular values are repeated. With L1, Linf and their balls
    it is Nuclear, SpectralNorm and theirs, which have a duality gap, and second derivatives
    cost  an SVD, O(m^2 n) for m <= n

    [1] Lewis. The convex analysis of unitarily invariant matrix functions. JCA, 1995. Lu et al.
        Generalized singular value thresholding. AAAI, 2015 (penalties that are not convex).
    """

    penalty: Proximable

    def __post_init__(self) -> None:
        needs_prox("SingularValues", self.penalty)

    def check(self, x: Tensor) -> None:
        s = matrix_singular_values(x)
        if x.ndim > 3 and self.penalty.admissible(s) is not s:
            raise ValueError(
                f"SingularValues({type(self.penalty).__name__}) weighs singular values against one "
                f"another, so it takes one matrix a sample, (B, m, n), got {tuple(x.shape)}. Make "
                "the other dims part of the batch."
            )
        generator = torch.Generator().manual_seed(0)
        some = torch.rand(s.shape, generator=generator, dtype=torch.float64).to(s)
        p, q = self.penalty.prox(some, 1.0), -self.penalty.prox(-some.flip(-2), 1.0).flip(-2)
        if bool(((p - q).abs() > 64 * s.shape[-2] * eps(s)).any()):
            raise ValueError(
                f"SingularValues needs a penalty that is the same for x, -x and the entries in "
                f"another order, and {type(self.penalty).__name__} is not. Leave out a target, and "
                "give one weight for all singular values of a matrix."
            )

    def value(self, x: Tensor) -> Tensor:
        s = matrix_singular_values(x)
        return self.penalty.value(torch.where(s <= slack(x) * s[..., :1, :], 0.0, s))  # L0 counts

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return on_spectrum(x, lambda s: self.penalty.prox(s, step))

    def strong_convexity(self, x: Tensor) -> Scalar:
        return self.penalty.strong_convexity(matrix_singular_values(x))

    def take(self, index: Tensor, x: Tensor) -> SingularValues | None:
        penalty = self.penalty.take(index, matrix_singular_values(x))
        return None if penalty is None else replace(self, penalty=penalty)

    def __rmul__(self, weight: Tensor | float) -> SingularValues:
        return replace(self, penalty=weight * self.penalty)


Map = Callable[[Tensor], Tensor]  # (B, ..., m, 1) -> the same; odd, and the same for every order


def on_spectrum(x: Tensor, function: Map) -> Tensor:
    """U diag(function(s)) V^T for the matrices of the last two dims, with derivatives in x and in
    what the function was made of.

    The derivative is that of the singular values, through the function, and that of the singular
    vectors, which divides by no difference of singular values that are close. Derivatives of these
    are those of an SVD.
    """
    if x.shape[-2] > x.shape[-1]:
        return on_spectrum(x.mT, function).mT
    frame = singular(x.detach())
    s: Any = _Spectrum.apply(x, frame)
    values = function(s[..., None])[..., 0]
    return _Turned.apply(x, values, frame, function)  # type: ignore[return-value]


class _Spectrum(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, frame: Rectangular) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.frame = frame
        return frame.spectrum.clone()  # else the node would hold its own output: a cycle

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _: None) -> Tensor:  # type: ignore[override]
        return _along(_recorded(ctx.saved_tensors[0], ctx.frame), x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _recorded(ctx.saved_tensors[0], ctx.frame).matrix(gradients[0]), None


class _Turned(Function):
    """U diag(values) V^T; of the derivative in X the part of U and V."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, frame: Rectangular, function: Map) -> Tensor:
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        ctx.at = frame, function
        return frame.matrix(values)

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, values: Tensor | None, *_: None) -> Any:
        frame, function = ctx.at
        frame = _recorded(ctx.saved_tensors[0], frame)
        pushed = 0.0 if values is None else frame.matrix(values)
        return pushed if x is None else pushed + _turned(frame, function, x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g,), (frame, function), needed = gradients, ctx.at, ctx.needs_input_grad
        frame = _recorded(ctx.saved_tensors[0], frame)
        of_x = _turned(frame, function, g) if needed[0] else None
        return of_x, _along(frame, g) if needed[1] else None, None, None


def _recorded(x: Tensor, frame: Rectangular) -> Rectangular:
    """The frame, with a derivative in x where one is recorded."""
    return singular(_Apart.apply(x, frame.spectrum)) if torch.is_grad_enabled() else frame  # type: ignore[arg-type]


def _along(frame: Rectangular, h: Tensor) -> Tensor:  # (..., m, n) -> (..., m)
    """The diagonal of U^T H V: the derivative of the singular values."""
    return (frame.u.mT @ h * frame.vh).sum(-1)


def _turned(frame: Rectangular, function: Map, h: Tensor) -> Tensor:
    """DF(X)[H] as in divided_differences.py, for any odd and symmetric function, without the
    diagonal of U^T H V."""
    s, (f, jacobian) = frame.spectrum, _linearised(function, frame.spectrum)
    slope = jacobian.diagonal(dim1=-2, dim2=-1)
    gap, total, limit = pairs(s, torch.sub), pairs(s, torch.add), pairs(slope, torch.add) / 2
    close, none = _close(s), total == 0
    apart = pairs(f, torch.sub) / torch.where(close, 1.0, gap)
    between = torch.where(close, limit - jacobian, apart)
    across = torch.where(none, limit, pairs(f, torch.add) / torch.where(none, 1.0, total))
    rest = torch.where(s == 0, slope, f / torch.where(s == 0, 1.0, s))[..., None]
    rows = frame.u.mT @ h
    a = rows @ frame.vh.mT
    core = between * (a + a.mT) / 2 + across * (a - a.mT) / 2
    core = core.diagonal_scatter(torch.zeros_like(s), dim1=-2, dim2=-1)
    return frame.u @ (core @ frame.vh + rest * (rows - a @ frame.vh))


def _linearised(function: Map, s: Tensor) -> tuple[Tensor, Tensor]:
    """function(s), (..., m), and its Jacobian within each matrix, (..., m, m)."""
    record, m = torch.is_grad_enabled(), s.shape[-1]
    units = torch.eye(m, dtype=s.dtype, device=s.device)
    units = units.reshape(m, *[1] * (s.ndim - 1), m).expand(m, *s.shape)
    with torch.enable_grad():
        s = s if record and s.requires_grad else s.detach().requires_grad_()
        f = function(s[..., None])[..., 0]
        rows = torch.autograd.grad(
            f, s, units, is_grads_batched=True, create_graph=record, materialize_grads=True
        )[0]
    return f, rows.movedim(0, -2)


def _close(s: Tensor) -> Tensor:  # (..., m) -> (..., m, m)
    return pairs(s, torch.sub).abs() <= eps(s) ** 0.5 * pairs(s, torch.add)


class _Apart(Function):
    """X, whose SVD has a derivative where singular values differ and, of rows that are too few to
    span the space, do not vanish."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spectrum: Tensor) -> Tensor:
        ctx.spectrum = spectrum
        return x.view_as(x)

    @staticmethod
    def jvp(ctx: Any, x: Tensor, _: None) -> Tensor:  # type: ignore[override]
        _check_apart(ctx.spectrum, x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        _check_apart(ctx.spectrum, gradients[0])
        return gradients[0], None


def _check_apart(s: Tensor, x: Tensor) -> None:
    ties = _close(s).sum() > s.numel()
    vanishing = (s <= slack(x) * s[..., :1]).sum(-1) > (x.shape[-2] == x.shape[-1])
    if bool(ties | vanishing.any()):
        raise NotImplementedError(
            "the prox of SingularValues has a second derivative only where singular values differ "
            "and do not vanish, and here they do not. Nuclear() and SpectralNorm() have it "
            "everywhere."
        )
