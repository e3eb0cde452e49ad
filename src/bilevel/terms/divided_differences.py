"""The derivatives of functions of singular values and eigenvalues, by divided differences.

They are f[p, q] and f[p, r, q] of the odd function f that is applied: a line on the active values,
0 on the others. Within a class (active, or not) they are known without a division, however close
the values; between classes the values are apart, unless X is at a kink.

Daleckii, Krein. Integration and differentiation of functions of hermitian operators. AMS
Translations, 1965. Noferini. A formula for the Frechet derivative of a generalized matrix function.
SIMAX, 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from .._tangents import depends, differentiates


def apply(
    x: Tensor,
    jump: Tensor,
    frame: Rectangular | Symmetric,
    active: Tensor,
    values: Tensor,
    slope: float,
) -> Tensor:
    """F(x), with its derivatives in x and in the jump (..., 1, 1); values = f(spectrum)."""
    return _Value.apply(x, jump, frame, Line(active, values, slope))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class Line:
    """f = slope s + jump sign(s) on the active s, 0 elsewhere; values = f(s) for s >= 0."""

    active: Tensor  # (..., m) bool
    values: Tensor  # (..., m)
    slope: float

    def step(self) -> Line:
        """df/djump: the sign on the active."""
        return Line(self.active, self.active.to(self.values), 0.0)


@dataclass(frozen=True, eq=False)
class Rectangular:
    """Singular vectors and values of matrices with m <= n."""

    u: Tensor  # (..., m, m)
    spectrum: Tensor  # (..., m), falling
    vh: Tensor  # (..., m, n)

    def matrix(self, values: Tensor) -> Tensor:
        return (self.u * values[..., None, :]) @ self.vh

    def first(self, line: Line, h: Tensor) -> Tensor:
        """DF(X)[H] = U (E * sym(A) + F * skew(A)) V^T + U diag(f / s) U^T H (1 - V V^T), where
        A = U^T H V, E = (f_i - f_j) / (s_i - s_j), F = (f_i + f_j) / (s_i + s_j)."""
        s, f, active = self.spectrum, line.values, line.active
        rows = self.u.mT @ h
        a = rows @ self.vh.mT
        same = pairs(active, torch.eq)
        apart = torch.where(same, 1.0, pairs(s, torch.sub))
        both = pairs(active, torch.logical_and)
        e = torch.where(same, line.slope * both, pairs(f, torch.sub) / apart)
        some = pairs(active, torch.logical_or)
        total = pairs(f, torch.add) / torch.where(some, pairs(s, torch.add), 1.0)
        core = e * (a + a.mT) / 2 + total * (a - a.mT) / 2
        ratio = torch.where(active, f / torch.where(active, s, 1.0), 0.0)[..., None]
        return self.u @ (core @ self.vh + ratio * (rows - a @ self.vh))

    def second(self, line: Line, jump: Tensor, g: Tensor, h: Tensor) -> Tensor:
        """D2F(X)[G, H], as that of the symmetric [[0, X], [X^T, 0]], whose eigenvalues are s, -s
        and 0. Rows are first brought into the space of at most 3 m dimensions that X, G and H span.
        """
        m, n = self.vh.shape[-2:]
        u, v = self.u, self.vh.mT
        if n > 3 * m:
            q = torch.linalg.qr(torch.cat([v, g.mT, h.mT], -1)).Q
            g, h, v = g @ q, h @ q, q.mT @ v
        else:
            q = None
        rest = torch.linalg.qr(v, mode="complete").Q[..., m:]
        half = 0.5**0.5
        zero = u.new_zeros(*u.shape[:-1], rest.shape[-1])
        left = torch.cat([half * u, half * u, zero], -1)
        right = torch.cat([half * v, -half * v, rest], -1)
        none = u.new_zeros(*u.shape[:-2], rest.shape[-1])
        spectrum = torch.cat([self.spectrum, -self.spectrum, none], -1)
        sign = line.active.to(u)
        sign = torch.cat([sign, -sign, none], -1)
        values = torch.cat([line.values, -line.values, none], -1)

        def lifted(h: Tensor) -> Tensor:
            half = left.mT @ h @ right
            return half + half.mT

        core = _second_difference(spectrum, sign, values, line.slope, jump, lifted(g), lifted(h))
        result = left @ core @ right.mT
        return result if q is None else result @ q.mT


@dataclass(frozen=True, eq=False)
class Symmetric:
    """Eigenvectors and eigenvalues; f acts on the positive ones only."""

    q: Tensor  # (..., n, n)
    spectrum: Tensor  # (..., n)

    def matrix(self, values: Tensor) -> Tensor:
        return (self.q * values[..., None, :]) @ self.q.mT

    def first(self, line: Line, h: Tensor) -> Tensor:
        """DF(X)[H] = Q (f[p, q] * Q^T H Q) Q^T."""
        same = pairs(line.active, torch.eq)
        apart = torch.where(same, 1.0, pairs(self.spectrum, torch.sub))
        both = line.slope * pairs(line.active, torch.logical_and)
        ratio = torch.where(same, both, pairs(line.values, torch.sub) / apart)
        return self.q @ (ratio * (self.q.mT @ h @ self.q)) @ self.q.mT

    def second(self, line: Line, jump: Tensor, g: Tensor, h: Tensor) -> Tensor:
        g, h = (self.q.mT @ d @ self.q for d in (g, h))
        sign = line.active.to(self.q)
        core = _second_difference(self.spectrum, sign, line.values, line.slope, jump, g, h)
        return self.q @ core @ self.q.mT


def pairs(v: Tensor, operation: Any) -> Tensor:  # (..., m) -> (..., m, m)
    return operation(v[..., :, None], v[..., None, :])


def _second_difference(
    s: Tensor, sign: Tensor, f: Tensor, slope: float, jump: Tensor, g: Tensor, h: Tensor
) -> Tensor:
    """sum_r f[p, r, q] (g_pr h_rq + h_pr g_rq) for symmetric g, h in the eigenbasis.

    Across classes f[p, r, q] = (f[p, r] - f[r, q]) / (p - q). Within one, where f is the line l,
    and for r outside of it, f[p, r, q] = (f(r) - l(r)) / ((p - r) (q - r)).
    """
    same = pairs(sign, torch.eq)
    apart = torch.where(same, 0.0, 1 / torch.where(same, 1.0, pairs(s, torch.sub)))
    inner = slope * sign.abs()[..., :, None].expand_as(same)
    ratio = torch.where(same, inner, pairs(f, torch.sub) * apart)
    off = f[..., None, :] - inner * s[..., None, :] - jump * sign[..., :, None]
    across = (ratio * g) @ h - g @ (ratio * h) + (ratio * h) @ g - h @ (ratio * g)
    weight = off * apart
    within = (weight * g) @ (apart * h) + (weight * h) @ (apart * g)
    return torch.where(same, -within, apart * across)


@dataclass(frozen=True, eq=False)
class _At:
    """Where a derivative is taken. Held by the nodes below without being their input, so that a
    product with the derivative costs no second derivative."""

    x: Tensor
    jump: Tensor
    frame: Rectangular | Symmetric
    line: Line

    def recorded(self) -> bool:
        return differentiates() and depends((self.x, self.jump))

    def value(self) -> Tensor:
        """F(X)."""
        return _Value.apply(self.x, self.jump, self.frame, self.line)  # type: ignore[return-value]

    def first(self, g: Tensor) -> Tensor:
        """DF(X)[G]."""
        product: Any = _First.apply(g, self)
        bend: Any = _Bend.apply(self.x, self.jump, (g, self)) if self.recorded() else 0.0
        return product + bend

    def second(self, g: Tensor, h: Tensor) -> Tensor:
        """D2F(X)[G, H]."""
        product: Any = _Second.apply(g, h, self)
        third: Any = _Third.apply(self.x, self.jump) if self.recorded() else 0.0
        return product + third

    def in_jump(self) -> _At:
        """The derivative in the jump."""
        return _At(self.x, torch.ones_like(self.jump), self.frame, self.line.step())


class _Value(Function):
    """F(X)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, jump: Tensor, frame: Any, line: Line) -> Tensor:
        ctx.save_for_backward(x, jump)
        ctx.save_for_forward(x, jump)
        ctx.frame, ctx.line = frame, line
        return frame.matrix(line.values)

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, jump: Tensor | None, *_: None) -> Tensor:  # type: ignore[override]
        at = _Value._at(ctx)
        of_jump = 0.0 if jump is None else jump * at.in_jump().value()
        return of_jump if x is None else at.first(x) + of_jump  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        at, (g,) = _Value._at(ctx), gradients
        of_x = at.first(g) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None, None, None
        return of_x, (g * at.in_jump().value()).sum((-2, -1), keepdim=True), None, None

    @staticmethod
    def _at(ctx: Any) -> _At:
        x, jump = ctx.saved_tensors
        return _At(x, jump, ctx.frame, ctx.line)


class _First(Function):
    """Linear and self-adjoint in G."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, at: _At) -> Tensor:
        ctx.at = at
        return at.frame.first(at.line, g)

    @staticmethod
    def jvp(ctx: Any, g: Tensor, _: None) -> Tensor:  # type: ignore[override]
        return ctx.at.first(g)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.at.first(gradients[0]), None


class _Bend(Function):
    """0, with the derivative of DF(X)[G] in X and in the jump."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, jump: Tensor, where: tuple[Tensor, _At]) -> Tensor:
        ctx.where = where
        return torch.zeros_like(x)

    @staticmethod
    def jvp(ctx: Any, x: Tensor | None, jump: Tensor | None, _: None) -> Tensor:  # type: ignore[override]
        g, at = ctx.where
        of_jump = 0.0 if jump is None else jump * at.in_jump().first(g)
        return of_jump if x is None else at.second(g, x) + of_jump  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g, at), (h,) = ctx.where, gradients
        of_x = at.second(g, h) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return of_x, None, None
        step = at.in_jump().first(g)
        return of_x, (h * step).sum((-2, -1), keepdim=True), None


class _Second(Function):
    """Linear in G and in H, and the derivative of a function: it is symmetric in all three."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, h: Tensor, at: _At) -> Tensor:
        ctx.save_for_backward(g, h)
        ctx.save_for_forward(g, h)
        ctx.at = at
        return at.frame.second(at.line, at.jump.detach(), g, h)

    @staticmethod
    def jvp(ctx: Any, g: Tensor | None, h: Tensor | None, _: None) -> Tensor:  # type: ignore[override]
        (a, b), at = ctx.saved_tensors, ctx.at
        of_h = 0.0 if h is None else at.second(a, h)
        return of_h if g is None else at.second(g, b) + of_h  # type: ignore[return-value]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (g, h), (k,) = ctx.saved_tensors, gradients
        of_g, of_h = ctx.needs_input_grad[:2]
        return ctx.at.second(h, k) if of_g else None, ctx.at.second(g, k) if of_h else None, None


class _Third(Function):
    """0, with a derivative that is refused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, jump: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        raise NotImplementedError(
            "functions of singular values and eigenvalues have derivatives up to the second, the "
            "third was asked for. Stop at Hessian-vector products."
        )

    jvp = backward  # type: ignore[assignment]
