"""Terms with a logarithm, finite on the positive orthant: Poisson data, entropy, barrier."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, like, sum_event, tiny
from .base import Dualizable, Proximable, Weighted
from .norms import _fitting
from .smooth import _guess


class _OnDomain(Weighted):
    """A weighted sum that is inf outside a domain, whatever the weight: 0 leaves the domain."""

    @abstractmethod
    def inside(self, x: Tensor) -> Tensor:  # (B, *event) -> the same, bool
        """Where the density is finite."""

    def value(self, x: Tensor) -> Tensor:
        return sum_event(torch.where(self.inside(x), self.weight * self.density(x), torch.inf))


@dataclass(frozen=True, eq=False)
class KullbackLeibler(_OnDomain, Proximable, Dualizable):
    """g(x) = weight sum u_i - c_i + c_i log(c_i / u_i), u = x + background >= 0, c = counts: the
    data term of Poisson noise; through an operator: KullbackLeibler(c) @ Matrix(A).

    prox       u = ((v - s) + sqrt((v - s)^2 + 4 s c)) / 2, v = x + background, s = step weight
    conjugate  -weight sum c log(1 - y / weight) - <background, y> for y < weight
    The gradient has no Lipschitz constant: an accelerated or plain gradient step may leave the
    domain, so the term offers its prox only.

    [1] Bertero, Boccacci, Desidera, Vicidomini. Image deblurring with Poisson data. 2009.
    """

    counts: Tensor | float  # >= 0
    background: Tensor | float = 0.0  # >= 0

    batched: ClassVar[tuple[str, ...]] = ("weight", "counts", "background")

    def inside(self, x: Tensor) -> Tensor:
        u = x + self.background
        return (u > 0) | ((u == 0) & (like(self.counts, x) == 0))

    def density(self, x: Tensor) -> Tensor:
        c = like(self.counts, x)
        u = torch.where(self.inside(x) & (c > 0), x + self.background, 1.0)
        return x + self.background - c + torch.xlogy(c, c) - c * u.log()

    def slope(self, x: Tensor) -> Tensor:
        """The derivative weight (1 - c / u), inside the domain."""
        return self.weight * (1 - self.counts / (x + self.background))

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = expand(step, x) * self.weight
        return _positive_root(x + self.background - s, s * self.counts) - self.background

    def conjugate(self, y: Tensor) -> Tensor:
        c, open_ = like(self.counts, y), 1 - y / self.weight
        if isinstance(self.weight, Tensor):  # where the weight is 0, only the domain is left
            open_ = torch.where((self.weight == 0) & (y == 0), 1.0, open_)
        inside = (open_ > 0) | ((c == 0) & (open_ >= -64 * eps(y)))
        log = torch.where(open_ > 0, open_, 1.0).log()
        dual = -self.weight * c * log - self.background * y
        return sum_event(torch.where(inside, dual, torch.inf))

    def dual_scale(self, y: Tensor) -> Tensor:  # strictly inside: the domain is open
        return _fitting(y.clamp(min=0), self.weight * (1 - 4 * eps(y)))

    def guess(self) -> Tensor | None:
        return _guess(self.counts)


@dataclass(frozen=True, eq=False)
class LogBarrier(_OnDomain, Proximable, Dualizable):
    """g(x) = -weight sum log x_i for x > 0: keeps x positive; with a small weight an approximation
    of NonNegative().

    prox       (x + sqrt(x^2 + 4 step weight)) / 2
    conjugate  -weight sum 1 + log(-y_i / weight) for y < 0
    """

    def inside(self, x: Tensor) -> Tensor:
        return x > 0

    def density(self, x: Tensor) -> Tensor:
        return -torch.where(x > 0, x, 1.0).log()

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        return _positive_root(x, expand(step, x) * self.weight)

    def conjugate(self, y: Tensor) -> Tensor:
        log = torch.where(y < 0, -y / self.weight, 1.0).log()
        return sum_event(torch.where(y < 0, -self.weight * (1 + log), torch.inf))


@dataclass(frozen=True, eq=False)
class Entropy(_OnDomain, Proximable, Dualizable):
    """g(x) = weight sum x_i log x_i for x >= 0, with 0 log 0 = 0: the negative entropy.

    prox       s W(exp(x / s - 1) / s), s = step weight, W the function of Lambert; computed in the
               logarithm, so that nothing overflows
    conjugate  weight sum exp(y_i / weight - 1)
    """

    def inside(self, x: Tensor) -> Tensor:
        return x >= 0

    def density(self, x: Tensor) -> Tensor:
        return torch.xlogy(x.clamp(min=0), torch.where(x > 0, x, 1.0))

    def admissible(self, step: Tensor) -> Tensor:
        return step  # separable

    def prox(self, x: Tensor, step: Scalar) -> Tensor:
        s = like(expand(step, x) * self.weight, x).clamp_min(tiny(x) ** 0.5)
        return s * wright_omega(x / s - 1 - s.log())

    def conjugate(self, y: Tensor) -> Tensor:
        if isinstance(self.weight, Tensor):  # where the weight is 0, y must be <= 0
            flat = torch.where(y <= 0, -torch.inf, torch.inf)
            exponent = torch.where(self.weight > 0, y / self.weight - 1, flat)
            free = (self.weight == 0) & (y <= 0)
            return sum_event(torch.where(free, 0.0, _times(self.weight, exponent.exp())))
        return sum_event(self.weight * (y / self.weight - 1).exp())


def _times(weight: Tensor, size: Tensor) -> Tensor:
    return torch.where(size == torch.inf, torch.inf, weight * size)


def _positive_root(b: Tensor, c: Tensor | float) -> Tensor:
    """The root u >= 0 of u^2 - b u - c, c >= 0, (b + sqrt(b^2 + 4 c)) / 2, without cancellation."""
    empty = like(c, b) <= 0  # the roots are b and 0
    c = torch.where(empty, 1.0, like(c, b))
    large = (b.abs() + (b.square() + 4 * c).sqrt()) / 2  # the roots are large and -c / large, or
    return torch.where(empty, b.clamp(min=0), torch.where(b >= 0, large, c / large))  # minus both


class _Omega(torch.autograd.Function):
    """The w > 0 with w + log w = z; dw/dz = w / (1 + w), of every order."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        log = torch.where(z > 1, z.clamp(min=1).log(), z)  # right of the root: Newton is monotone
        for _ in range(6):
            w = log.exp()
            log = log - (w + log - z) / (1 + w)
        w = torch.where(z > 1, z - log, log.exp())  # the one that does not magnify rounding
        ctx.save_for_backward(w)
        ctx.save_for_forward(w)
        return w

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:  # type: ignore[override]
        (w,) = ctx.saved_tensors
        return cotangent * w / (1 + w)

    jvp = backward  # type: ignore[assignment]  # one factor an entry, both ways


def wright_omega(z: Tensor) -> Tensor:
    """omega(z) = W(exp(z)), W the function of Lambert: the solution of w + log w = z (Corless,
    Jeffrey 2002)."""
    return _Omega.apply(z)  # type: ignore[return-value]
