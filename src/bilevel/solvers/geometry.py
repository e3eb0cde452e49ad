"""Legendre functions phi on constraint sets: steps in their coordinates are smooth and stay inside.

A Bregman step is argmin_u <slope, u> + D(u, x), D(u, x) = phi(u) - phi(x) - <grad phi(x), u - x>.
It is made in a coordinate q in which the boundary lies at infinity (log x for x > 0), so that
nothing under- or overflows. There it has a plain motion, q' = q - slope for most. A coordinate
that goes to infinity is stopped where x can no longer be told from the boundary.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .._broadcast import Scalar, eps, expand, like, tiny
from ..terms.linear import Largest
from ..terms.logarithms import wright_omega
from ..terms.norms import L1
from ..terms.sets import Box, NonNegative, Simplex


class Geometry(ABC):
    """phi, by its coordinate q. Fields may carry tensors that require a gradient."""

    @abstractmethod
    def point(self, q: Tensor) -> Tensor:
        """x(q), inside the set."""

    @abstractmethod
    def coordinate(self, x: Tensor) -> Tensor:
        """q(x), finite also where x lies on the boundary."""

    @abstractmethod
    def interior(self, x: Tensor) -> Tensor:
        """x, or a point that is well inside where x is not."""

    @abstractmethod
    def strength(self, x: Tensor) -> Scalar:
        """mu with phi - sum mu_i x_i^2 / 2 convex: a number, (B,), or broadcasts against x."""

    @abstractmethod
    def move(self, q: Tensor, slope: Tensor, entropy: Scalar | None = None) -> Tensor:
        """q of argmin_u <slope, u> + entropy sum u log u + D(u, x(q))."""

    @abstractmethod
    def edge(self, q: Tensor) -> Tensor:
        """Where q is stopped on the side on which it lies."""

    @abstractmethod
    def slack(self, q: Tensor) -> Tensor:
        """The distance of x from the boundary, as a part of the largest; up to 1."""

    @abstractmethod
    def outward(self, q: Tensor, t: Tensor) -> Tensor:  # bool
        """Whether t lies beyond q, seen from inside."""

    def moved(self, q: Tensor, t: Tensor) -> Tensor:  # -> (B,)
        """The largest change of q; of one that goes outwards no more than the distance of x from
        the boundary, which is all that is left of its way: complementarity."""
        if not q[0:1].numel():
            return q.new_zeros(len(q))
        left = torch.where(self.outward(q, t), self.slack(q), torch.inf)
        return torch.minimum((q - t).abs(), left).flatten(1).amax(1)

    def landed(self, q: Tensor, t: Tensor, tol: float) -> Tensor:
        """q, put on the boundary where x is within tol of it and t = T(q) lies further out."""
        return torch.where(self.outward(q, t) & (self.slack(q) <= tol), self.edge(q), q)

    def sized(self, size: Scalar) -> Geometry:
        """The geometry for x of about this size, where it has a scale of its own to be chosen."""
        return self


def _far(q: Tensor) -> float:
    """-log of what is rounding beside 1."""
    return -math.log(eps(q))


Dims = int | tuple[int, ...]


def _floor(q: Tensor, dim: Dims) -> Tensor:
    """Where a logarithm is rounding beside the largest along dim."""
    return (q.detach().amax(dim, keepdim=True) - _far(q)).clamp_min(math.log(tiny(q)) / 2)


def _stopped(q: Tensor, dim: Dims) -> Tensor:
    return torch.maximum(q, _floor(q, dim))


def _part(q: Tensor, dim: Dims) -> Tensor:
    """exp(q), as a part of the largest along dim."""
    return (q - q.amax(dim, keepdim=True)).exp()


def _opened(q: Tensor, dim: Dims) -> Tensor:
    """-inf for what was stopped: x is on the boundary there, exactly."""
    return q.masked_fill(q <= _floor(q, dim), -torch.inf)


def _log(x: Tensor) -> Tensor:
    return x.clamp_min(tiny(x) ** 0.5).log()


def _event(x: Tensor) -> tuple[int, ...]:
    return tuple(range(1, x.ndim))


@dataclass(frozen=True, eq=False)
class PositiveEntropy(Geometry):
    """x > 0: phi = sum x log x - x + curvature x^2 / 2, q = log x.

    u          the root of log u + curvature u = log x + curvature x - slope, by Wright's omega
    curvature  makes phi strongly convex, so that every f with a Lipschitz gradient is smooth
               relative to it. 1 / curvature is a size of x: much above it steps are those of
               projected gradient, below it x exp(-slope). 0: exponentiated gradient, for which no
               step size can be promised.
    """

    curvature: Scalar | None = None  # None: 1 / the size of x, estimated

    def sized(self, size: Scalar) -> PositiveEntropy:
        return self if self.curvature is not None else replace(self, curvature=1 / size)

    @property
    def plain(self) -> bool:
        """Whether it is the entropy alone."""
        return self.curvature is not None and not bool(torch.as_tensor(self.curvature).any())

    def _at(self, q: Tensor) -> Tensor:  # a tensor that broadcasts against q
        assert self.curvature is not None, "not prepared"
        return like(expand(self.curvature, q), q)

    def point(self, q: Tensor) -> Tensor:
        return _opened(q, _event(q)).exp()

    def coordinate(self, x: Tensor) -> Tensor:
        return _stopped(_log(x), _event(x))

    def interior(self, x: Tensor) -> Tensor:
        c = self._at(x)
        return torch.where(x > 0, x, torch.where(c > 0, 1 / c, 1.0))

    def edge(self, q: Tensor) -> Tensor:
        return _floor(q, _event(q)).expand_as(q)

    def slack(self, q: Tensor) -> Tensor:
        return _part(q, _event(q))

    def outward(self, q: Tensor, t: Tensor) -> Tensor:
        return t < q

    def strength(self, x: Tensor) -> Scalar:
        c = self._at(x)
        return torch.where(c > 0, c, 1.0)

    def move(self, q: Tensor, slope: Tensor, entropy: Scalar | None = None) -> Tensor:
        c, entropy = self._at(q), 0.0 if entropy is None else entropy
        p = (q + c * self.point(q) - slope - entropy) / (1 + entropy)
        b = c / (1 + entropy)  # log u + b u = p
        root = wright_omega(p + torch.where(b > 0, b, 1.0).log())
        return _stopped(torch.where(b > 0, p - root, p), _event(q))


@dataclass(frozen=True, eq=False)
class SimplexEntropy(Geometry):
    """x > 0 with sum x = total along `dim`: phi = sum x log x, q = log(x / total), u = softmax."""

    total: Tensor | float = 1.0
    dim: int = -1

    def point(self, q: Tensor) -> Tensor:
        return self.total * _opened(q, self.dim).softmax(self.dim)

    def coordinate(self, x: Tensor) -> Tensor:
        return _stopped(_log(x).log_softmax(self.dim), self.dim)

    def interior(self, x: Tensor) -> Tensor:
        inside = (x > 0).all(self.dim, keepdim=True)
        return torch.where(inside, x, torch.ones_like(x))

    def edge(self, q: Tensor) -> Tensor:
        return _floor(q, self.dim).expand_as(q)

    def slack(self, q: Tensor) -> Tensor:
        return _part(q, self.dim)

    def outward(self, q: Tensor, t: Tensor) -> Tensor:
        return t < q

    def strength(self, x: Tensor) -> Scalar:  # Pinsker; x_i <= total
        return 1 / like(self.total, x).detach().clamp_min(tiny(x) ** 0.5)

    def move(self, q: Tensor, slope: Tensor, entropy: Scalar | None = None) -> Tensor:
        q = q - slope if entropy is None else (q - slope) / (1 + entropy)
        q = q.log_softmax(self.dim)
        return _stopped(q, self.dim)


@dataclass(frozen=True, eq=False)
class BoxEntropy(Geometry):
    """lower < x < upper: phi = sum (x - lower) log(x - lower) + (upper - x) log(upper - x).

    q = log(x - lower) - log(upper - x), x = lower + (upper - lower) sigmoid(q); for a symmetric
    box x = upper tanh(q / 2).
    """

    lower: Tensor | float
    upper: Tensor | float

    def _width(self, x: Tensor) -> Tensor:
        return like(self.upper, x) - like(self.lower, x)

    def point(self, q: Tensor) -> Tensor:  # from the nearer end: rounding leaves it inside
        q = q.masked_fill(q <= -_far(q), -torch.inf).masked_fill(q >= _far(q), torch.inf)
        low = like(self.lower, q) + self._width(q) * q.sigmoid()
        return torch.where(q < 0, low, like(self.upper, q) - self._width(q) * (-q).sigmoid())

    def coordinate(self, x: Tensor) -> Tensor:
        below, above = x - self.lower, self.upper - x
        return self._clamp(_log(below) - _log(above))

    def interior(self, x: Tensor) -> Tensor:
        middle = (like(self.lower, x) + like(self.upper, x)) / 2
        return torch.where((x > self.lower) & (x < self.upper), x, middle)

    def edge(self, q: Tensor) -> Tensor:
        return torch.where(q < 0, -_far(q), _far(q))

    def slack(self, q: Tensor) -> Tensor:
        return 4 * q.sigmoid() * (-q).sigmoid()

    def outward(self, q: Tensor, t: Tensor) -> Tensor:
        return (t - q) * q > 0

    def strength(self, x: Tensor) -> Scalar:  # phi'' = width / ((x - lower) (upper - x))
        return 4 / self._width(x).detach().clamp_min(tiny(x) ** 0.5)

    def move(self, q: Tensor, slope: Tensor, entropy: Scalar | None = None) -> Tensor:
        if entropy is not None:
            raise TypeError("BoxEntropy has no closed form with an Entropy() beside it.")
        return self._clamp(q - slope)

    @staticmethod
    def _clamp(q: Tensor) -> Tensor:
        return q.clamp(-_far(q), _far(q))


@dataclass(frozen=True, eq=False)
class Burg(Geometry):
    """x > 0: phi = -sum log x, q = log x, u = x / (1 + x slope).

    For Poisson data: c log(1 / <a, x>) is c-smooth relative to it for every a >= 0, though its
    gradient has no Lipschitz constant. The boundary is approached like 1 / k only.

    [1] Bauschke, Bolte, Teboulle. A descent lemma beyond Lipschitz gradient continuity. Math. of
        Operations Research, 2017.
    """

    point = PositiveEntropy.point
    coordinate = PositiveEntropy.coordinate
    edge = PositiveEntropy.edge
    slack = PositiveEntropy.slack
    outward = PositiveEntropy.outward

    def interior(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 1.0)

    def strength(self, x: Tensor) -> Scalar:  # relative to Poisson data, not to squares
        return 1.0

    def move(self, q: Tensor, slope: Tensor, entropy: Scalar | None = None) -> Tensor:
        if entropy is not None:
            raise TypeError("Burg has no closed form with an Entropy() beside it.")
        return _stopped(q - (self.point(q) * slope).log1p(), _event(q))


def primal_geometry(term: object) -> Geometry | None:
    """Of a constraint; None where none is known."""
    if isinstance(term, NonNegative):
        return PositiveEntropy()
    if isinstance(term, Simplex):
        return SimplexEntropy(term.total, term.dim)
    if isinstance(term, Box):
        bounds = (term.lower, term.upper)
        finite = all(bool(torch.as_tensor(b).isfinite().all()) for b in bounds)
        return BoxEntropy(*bounds) if finite else None
    return None


def dual_geometry(term: object) -> Geometry | None:
    """Of the domain of a term's conjugate, where that is the indicator of a set."""
    if isinstance(term, L1):
        return BoxEntropy(-term.weight, term.weight)
    if isinstance(term, Largest):
        return SimplexEntropy(term.weight, term.dim)
    return None
