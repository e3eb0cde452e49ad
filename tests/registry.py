"""Every object of the library, with a small instance: add yours by one line; the laws run on it.

`test_registry.py` fails when a public class is missing here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pylops
import scipy.sparse
import torch
from torch import Tensor

import bilevel as bl


@dataclass
class Draw:
    """Random numbers for one instance: x has shape (batch, *event)."""

    batch: int = 4
    event: tuple[int, ...] = (5,)
    dtype: torch.dtype = torch.float64
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        return torch.randn(shape, generator=self.generator, dtype=wide).to(self.device, self.dtype)

    def positive(self, *shape: int) -> Tensor:
        """In [0.2, 1]."""
        uniform = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (0.2 + 0.8 * uniform).to(self.device, self.dtype)

    def x(self) -> Tensor:
        return self.normal(self.batch, *self.event)

    def per_sample(self) -> Tensor:
        return self.positive(self.batch, *[1] * len(self.event))

    def per_pixel(self) -> Tensor:
        return self.positive(*self.event)

    def full(self) -> Tensor:  # another weight for each pixel of each sample
        return self.positive(self.batch, *self.event)

    def offset(self) -> Tensor:  # one number a sample, of either sign
        return self.normal(self.batch, *[1] * len(self.event))

    def signs(self) -> Tensor:
        return self.x().sign()

    def groups(self) -> Tensor:  # one weight for each vector along the last dim
        return self.positive(self.batch, *self.event[:-1], 1)


@dataclass(frozen=True)
class Case:
    """`make` builds the object from a Draw whose event has the rank of `event`."""

    name: str
    make: Callable[[Draw], object]
    event: tuple[int, ...] = (5,)
    indexable: bool = True  # whether Problem.take can index it
    dtype: torch.dtype = torch.float64  # of x
    kept: int = 0  # sizes of the event, from the first, that `make` relies on
    square: bool = False  # whether the last two dims must be equal
    convex: bool = True
    scalable: bool = True  # whether dual_scale brings every y into the conjugate's domain
    valued: bool = True  # whether a function stands behind its prox

    def __str__(self) -> str:
        return self.name


IMAGE, COLOUR, VOLUME = (1, 4, 5), (3, 4, 5), (1, 3, 4, 2)


def cosh(x: Tensor) -> Tensor:
    return (x.cosh() - 1).flatten(1).sum(1)


def _splines(d: Draw) -> bl.Spline:
    return bl.Spline(d.positive(3, 1, 1, 3), d.positive(3))


TERMS = [
    Case("LeastSquares", lambda d: bl.LeastSquares(d.x())),
    Case("LeastSquares, no target", lambda d: bl.LeastSquares(), IMAGE),
    Case("LeastSquares, per sample", lambda d: d.per_sample() * bl.LeastSquares(d.x())),
    Case("LeastSquares, per feature", lambda d: d.per_pixel() * bl.LeastSquares(d.x())),
    Case("LeastSquares, per pixel", lambda d: d.full() * bl.LeastSquares(d.x()), IMAGE),
    Case("LeastSquares, shared target", lambda d: bl.LeastSquares(d.normal(*d.event))),
    Case("Huber", lambda d: bl.Huber(0.7, d.x())),
    Case("Huber, no target", lambda d: 0.6 * bl.Huber(0.5), IMAGE),
    Case("Huber, per sample", lambda d: d.per_sample() * bl.Huber(d.per_sample(), d.x())),
    Case("Huber, per feature", lambda d: d.per_pixel() * bl.Huber(d.per_pixel(), d.x())),
    Case("Logistic", lambda d: bl.Logistic(d.signs())),
    Case("Logistic, per sample", lambda d: d.per_sample() * bl.Logistic(d.signs())),
    Case("Logistic, per feature", lambda d: d.per_pixel() * bl.Logistic(d.signs())),
    Case("Potential", lambda d: 0.5 * bl.Potential(cosh), indexable=False),
    Case("L1", lambda d: bl.L1()),
    Case("L1, weight", lambda d: 0.3 * bl.L1(), IMAGE),
    Case("L1, per sample", lambda d: d.per_sample() * bl.L1()),
    Case("L1, per feature", lambda d: d.per_pixel() * bl.L1()),
    Case("L1, some features free", lambda d: (d.normal(*d.event) > 0).to(d.dtype) * bl.L1()),
    Case("L2", lambda d: 0.8 * bl.L2()),
    Case("L2, per sample", lambda d: d.per_sample() * bl.L2(), IMAGE),
    Case("L21", lambda d: 0.7 * bl.L21(), (3, 4)),
    Case("L21, per sample", lambda d: d.per_sample() * bl.L21(), (3, 4)),
    Case("L21, per group", lambda d: d.groups() * bl.L21(), (3, 4)),
    Case("L21, another dim", lambda d: 0.5 * bl.L21(dim=1), (3, 4)),
    Case("ElasticNet", lambda d: 0.6 * bl.ElasticNet(0.3)),
    Case("ElasticNet, L1 only", lambda d: 0.6 * bl.ElasticNet(1.0)),
    Case("ElasticNet, per sample", lambda d: d.per_sample() * bl.ElasticNet(d.per_sample())),
    Case("ElasticNet, per feature", lambda d: d.per_pixel() * bl.ElasticNet(d.per_pixel())),
    Case("TotalVariation1D", lambda d: 0.3 * bl.TotalVariation(dims=1)),
    Case("TotalVariation1D, channels", lambda d: 0.3 * bl.TotalVariation(dims=1), (2, 5)),
    Case("TotalVariation1D, per sample", lambda d: d.per_sample() * bl.TotalVariation(dims=1)),
    Case(
        "TotalVariation1D, per edge",
        lambda d: d.positive(d.event[-1] - 1) * bl.TotalVariation(dims=1),
    ),
    Case(
        "TotalVariation1D, edges of each sample",
        lambda d: d.positive(d.batch, d.event[-1] - 1) * bl.TotalVariation(dims=1),
    ),
    Case("TotalVariation, 2-D", lambda d: 0.3 * bl.TotalVariation(), IMAGE),
    Case("TotalVariation, 3-D", lambda d: 0.3 * bl.TotalVariation(dims=3), VOLUME),
    Case("TotalVariation, aniso", lambda d: bl.TotalVariation(isotropic=False), IMAGE),
    Case("TotalVariation, per sample", lambda d: d.per_sample() * bl.TotalVariation(), IMAGE),
    Case("TotalVariation, per pixel", lambda d: d.full() * bl.TotalVariation(), IMAGE),
    Case("TotalVariation, coupled", lambda d: 0.3 * bl.TotalVariation(coupled=True), COLOUR),
    Case("TotalVariation, coupled, aniso", lambda d: bl.TotalVariation(2, False, True), COLOUR),
    Case("TotalVariation, coupled signals", lambda d: bl.TotalVariation(1, coupled=True), (3, 5)),
    Case("TotalVariation, coupled, per pixel", lambda d: per_colour(d), COLOUR),
    Case("L21, several dims", lambda d: 0.5 * bl.L21(dim=(1, 3)), COLOUR),
    Case("Box", lambda d: bl.Box(-0.4, 0.6)),
    Case("Box, half open", lambda d: bl.Box(-0.4, torch.inf)),
    Case("Box, per feature", lambda d: bl.Box(-d.per_pixel(), d.per_pixel())),
    Case("Box, per sample", lambda d: bl.Box(-d.full(), d.full()), IMAGE),
    Case("NonNegative", lambda d: bl.NonNegative()),
    Case("Simplex", lambda d: bl.Simplex()),
    Case("Simplex, another total", lambda d: bl.Simplex(2.5), IMAGE),
    Case("Simplex, per sample", lambda d: bl.Simplex(d.per_sample())),
    Case("Simplex, another dim", lambda d: bl.Simplex(dim=1), (3, 4)),
    Case("L2Ball", lambda d: bl.L2Ball(0.9)),
    Case("L2Ball, per sample", lambda d: bl.L2Ball(d.per_sample(), d.x()), IMAGE),
    Case("L2Ball, a point", lambda d: bl.L2Ball(0.0, d.x())),
    Case("Absolute", lambda d: bl.Absolute(d.x())),
    Case("Absolute, per sample", lambda d: d.per_sample() * bl.Absolute(d.x()), IMAGE),
    Case("Absolute, per feature", lambda d: d.per_pixel() * bl.Absolute(d.normal(*d.event))),
    Case("Quantile", lambda d: bl.Quantile(0.3, d.x())),
    Case("Quantile, per sample", lambda d: d.per_sample() * bl.Quantile(d.per_sample(), d.x())),
    Case("Quantile, per feature", lambda d: d.per_pixel() * bl.Quantile(d.per_pixel(), d.x())),
    Case("Hinge", lambda d: 0.7 * bl.Hinge(d.signs())),
    Case("Hinge, per sample", lambda d: d.per_sample() * bl.Hinge(d.signs())),
    Case("Hinge, per feature", lambda d: d.per_pixel() * bl.Hinge(d.signs())),
    Case("SquaredHinge", lambda d: 0.7 * bl.SquaredHinge(d.signs())),
    Case("SquaredHinge, per sample", lambda d: d.per_sample() * bl.SquaredHinge(d.signs())),
    Case("SquaredHinge, per feature", lambda d: d.per_pixel() * bl.SquaredHinge(d.signs())),
    Case("KullbackLeibler", lambda d: bl.KullbackLeibler(d.full())),
    Case("KullbackLeibler, no counts", lambda d: 0.5 * bl.KullbackLeibler(0.0)),
    Case("KullbackLeibler, some counts", lambda d: bl.KullbackLeibler(d.x().clamp(min=0), 0.3)),
    Case("KullbackLeibler, per sample", lambda d: poisson(d, d.per_sample()), IMAGE),
    Case("KullbackLeibler, per feature", lambda d: poisson(d, d.per_pixel())),
    Case("LogBarrier", lambda d: 0.3 * bl.LogBarrier()),
    Case("LogBarrier, per sample", lambda d: d.per_sample() * bl.LogBarrier(), IMAGE),
    Case("LogBarrier, per feature", lambda d: d.per_pixel() * bl.LogBarrier()),
    Case("Entropy", lambda d: 0.6 * bl.Entropy()),
    Case("Entropy, per sample", lambda d: d.per_sample() * bl.Entropy(), IMAGE),
    Case("Entropy, per feature", lambda d: d.per_pixel() * bl.Entropy()),
    Case("LogSumExp", lambda d: 0.7 * bl.LogSumExp()),
    Case("LogSumExp, per sample", lambda d: d.per_sample() * bl.LogSumExp()),
    Case("LogSumExp, another dim", lambda d: 0.7 * bl.LogSumExp(dim=1), (3, 4)),
    Case("CrossEntropy", lambda d: bl.CrossEntropy(d.x().softmax(-1))),
    Case("CrossEntropy, one-hot", lambda d: 0.4 * bl.CrossEntropy(one_hot(d))),
    Case("CrossEntropy, per vector", lambda d: d.groups() * bl.CrossEntropy(one_hot(d)), (3, 4)),
    Case("Quadratic", lambda d: 0.6 * bl.Quadratic(psd(d), d.x())),
    Case("Quadratic, per sample", lambda d: d.per_sample() * bl.Quadratic(psd(d, d.batch))),
    Case("Quadratic, shared q", lambda d: bl.Quadratic(psd(d), d.normal(*d.event))),
    Case("L0", lambda d: 0.3 * bl.L0()),
    Case("L0, per sample", lambda d: d.per_sample() * bl.L0(), IMAGE),
    Case("L0, per feature", lambda d: d.per_pixel() * bl.L0()),
    Case("TruncatedQuadratic", lambda d: bl.TruncatedQuadratic(0.4)),
    Case("TruncatedQuadratic, per sample", lambda d: truncated(d, d.per_sample()), IMAGE),
    Case("TruncatedQuadratic, per feature", lambda d: truncated(d, d.per_pixel())),
    Case("TrimmedL1", lambda d: 0.6 * bl.TrimmedL1(2), convex=False),
    Case("TrimmedL1, a part", lambda d: bl.TrimmedL1(1.3), IMAGE, convex=False),
    Case("TrimmedL1, per sample", lambda d: d.per_sample() * trimmed(d), IMAGE, convex=False),
    Case("MCP", lambda d: bl.MCP(0.5)),
    Case("MCP, narrow", lambda d: bl.MCP(0.5, 0.2)),  # smaller than the steps
    Case("MCP, per sample", lambda d: d.per_sample() * bl.MCP(d.per_sample()), IMAGE),
    Case("MCP, per feature", lambda d: d.per_pixel() * bl.MCP(d.per_pixel(), 1 + d.per_pixel())),
    Case("SCAD", lambda d: bl.SCAD(0.4)),
    Case("SCAD, narrow", lambda d: bl.SCAD(0.4, 1.5)),
    Case("SCAD, per sample", lambda d: d.per_sample() * bl.SCAD(d.per_sample()), IMAGE),
    Case("SCAD, per feature", lambda d: d.per_pixel() * bl.SCAD(d.per_pixel(), 3 + d.per_pixel())),
    Case("LogSum", lambda d: 0.4 * bl.LogSum(0.9)),
    Case("LogSum, narrow", lambda d: bl.LogSum(0.1)),
    Case("LogSum, per sample", lambda d: d.per_sample() * bl.LogSum(d.per_sample()), IMAGE),
    Case("LogSum, per feature", lambda d: d.per_pixel() * bl.LogSum(d.per_pixel())),
    Case("Geman", lambda d: 0.4 * bl.Geman(0.9)),
    Case("Geman, narrow", lambda d: bl.Geman(0.1)),
    Case("Geman, per sample", lambda d: d.per_sample() * bl.Geman(d.per_sample()), IMAGE),
    Case("Geman, per feature", lambda d: d.per_pixel() * bl.Geman(d.per_pixel())),
    Case("ETP", lambda d: 0.4 * bl.ETP(0.9)),
    Case("ETP, narrow", lambda d: bl.ETP(0.1)),
    Case("ETP, per sample", lambda d: d.per_sample() * bl.ETP(d.per_sample()), IMAGE),
    Case("ETP, per feature", lambda d: d.per_pixel() * bl.ETP(d.per_pixel())),
    Case("SquaredL1", lambda d: 0.4 * bl.SquaredL1()),
    Case("SquaredL1, per sample", lambda d: d.per_sample() * bl.SquaredL1(), IMAGE),
    Case("SquaredLinf", lambda d: 0.8 * bl.SquaredLinf()),
    Case("SquaredLinf, per sample", lambda d: d.per_sample() * bl.SquaredLinf(), IMAGE),
    Case("GroupL2", lambda d: 0.5 * bl.GroupL2(labels(d))),
    Case("GroupL2, per sample", lambda d: d.per_sample() * bl.GroupL2(labels(d)), IMAGE),
    Case("GroupL2, per group", lambda d: d.positive(2)[: d.event[0]] * bl.GroupL2(labels(d))),
    Case("SparseL21", lambda d: 0.5 * bl.SparseL21(), (3, 4)),
    Case("SparseL21, per sample", lambda d: d.per_sample() * bl.SparseL21(d.per_sample()), (3, 4)),
    Case("SparseL21, per group", lambda d: d.groups() * bl.SparseL21(0.3), (3, 4)),
    Case("SparseL21, another dim", lambda d: 0.5 * bl.SparseL21(0.7, dim=1), (3, 4)),
    Case("MoreauEnvelope", lambda d: 0.7 * bl.MoreauEnvelope(0.5 * bl.L1(), 0.4)),
    Case("MoreauEnvelope, a set", lambda d: bl.MoreauEnvelope(bl.Simplex(), 0.4)),
    Case("MoreauEnvelope, weakly convex", lambda d: bl.MoreauEnvelope(bl.MCP(0.5, 2.0), 0.7)),
    Case("MoreauEnvelope, per sample", lambda d: d.per_sample() * envelope(d), IMAGE),
    Case("Orthogonal", lambda d: bl.Orthogonal(0.4 * bl.L1(), rotation(d))),
    Case("Anchored", lambda d: bl.Anchored(0.4 * bl.L1(), d.x(), 0.7)),
    Case(
        "Anchored, per sample",
        lambda d: bl.Anchored(d.per_sample() * bl.MCP(0.5), d.x(), d.per_sample()),
        IMAGE,
    ),
    Case("Orthogonal, a frame", lambda d: bl.Orthogonal(d.per_sample() * bl.L1(), frame(d), 4.0)),
    Case("Separable", lambda d: blocks(d), (5, 2)),
    Case("VectorField", lambda d: bl.VectorField(turning), indexable=False, valued=False),
    Case("PlugAndPlay", lambda d: bl.PlugAndPlay(smoother), IMAGE, indexable=False, valued=False),
    Case(
        "PlugAndPlay, leveled",
        lambda d: 0.5 * bl.PlugAndPlay(shrinker, True),
        indexable=False,
        valued=False,
    ),
    Case("RED", lambda d: d.per_sample() * bl.RED(smoother), IMAGE, indexable=False),
    Case("SmoothComposition", lambda d: bl.LeastSquares(d.normal(d.batch, 3)) @ wide(d)),
    Case("SmoothComposition, own", lambda d: bl.Logistic(d.signs()) @ own(d)),
    Case("Composition", lambda d: 0.4 * bl.L1() @ wide(d)),
    Case("SmoothSum", lambda d: smooth_sum(d)),
]

MATRICES, CHANNELS, TALL = (3, 4), (2, 4, 3), (5, 2)

TERMS += [
    Case("Box, equal bounds", lambda d: bl.Box(*2 * [d.per_pixel()])),
    Case("Box, some sides open", lambda d: bl.Box(-opened(d), opened(d)), scalable=False),
    Case("L1Ball", lambda d: bl.L1Ball(0.9)),
    Case("L1Ball, per sample", lambda d: bl.L1Ball(d.per_sample(), d.x()), IMAGE),
    Case("L1Ball, a point", lambda d: bl.L1Ball(0.0, d.x())),
    Case("LinfBall", lambda d: bl.LinfBall(0.4)),
    Case("LinfBall, per sample", lambda d: bl.LinfBall(d.per_sample(), d.x()), IMAGE),
    Case("L21Ball", lambda d: bl.L21Ball(1.3), MATRICES),
    Case("L21Ball, per sample", lambda d: bl.L21Ball(d.per_sample(), dim=1), MATRICES),
    Case("L1InfBall", lambda d: bl.L1InfBall(1.3), MATRICES),
    Case("L1InfBall, per sample", lambda d: bl.L1InfBall(d.per_sample(), dim=1), CHANNELS),
    Case("L0Ball", lambda d: bl.L0Ball(2), convex=False),
    Case("Spline", lambda d: bl.Spline(d.positive(4), d.positive(4))),
    Case("Spline, one a channel", lambda d: 0.6 * _splines(d), COLOUR, kept=1),
    Case(
        "Spline, bent",
        lambda d: bl.Spline(torch.tensor([0.8, -0.04]).to(d.x()), d.positive(2)),
        convex=False,
    ),
    Case("SparseEnvelope", lambda d: bl.SparseEnvelope(2)),
    Case("SparseEnvelope, one", lambda d: bl.SparseEnvelope(1), IMAGE),
    Case("L0Ball, groups", lambda d: bl.L0Ball(2, dim=1), MATRICES, convex=False),
    Case("Linear", lambda d: 0.7 * bl.Linear(d.x())),
    Case("Linear, per sample", lambda d: d.per_sample() * bl.Linear(d.x())),
    Case("Largest", lambda d: 0.7 * bl.Largest()),
    Case("Largest, per group", lambda d: d.groups() * bl.Largest(), MATRICES),
    Case("Largest, another dim", lambda d: 0.5 * bl.Largest(dim=1), MATRICES),
    Case("Linf", lambda d: 0.7 * bl.Linf()),
    Case("Linf, per sample", lambda d: d.per_sample() * bl.Linf(), IMAGE),
    Case("L1Inf", lambda d: 0.5 * bl.L1Inf(), MATRICES),
    Case("L1Inf, per group", lambda d: d.groups() * bl.L1Inf(), MATRICES),
    Case("L1Inf, another dim", lambda d: 0.5 * bl.L1Inf(dim=1), MATRICES),
    Case("SortedL1", lambda d: 0.6 * bl.SortedL1(falling(d.normal(size(d))))),
    Case("SortedL1, image", lambda d: d.per_sample() * bl.SortedL1(falling(d.x())), IMAGE),
    Case("SortedL1, equal levels", lambda d: bl.SortedL1(0 * d.normal(size(d)) + 0.3)),
    Case("Nuclear", lambda d: 0.7 * bl.Nuclear(), MATRICES),
    Case("Nuclear, per sample", lambda d: d.per_sample() * bl.Nuclear(), TALL),
    Case("Nuclear, per matrix", lambda d: per_matrix(d) * bl.Nuclear(), (2, 3, 7)),
    Case("SpectralNorm", lambda d: 0.7 * bl.SpectralNorm(), MATRICES),
    Case("SpectralNorm, per sample", lambda d: d.per_sample() * bl.SpectralNorm(), CHANNELS),
    Case("NuclearBall", lambda d: bl.NuclearBall(1.1), MATRICES),
    Case("NuclearBall, per sample", lambda d: bl.NuclearBall(d.per_sample()), TALL),
    Case("SpectralBall", lambda d: bl.SpectralBall(0.6), MATRICES),
    Case("SpectralBall, per sample", lambda d: bl.SpectralBall(d.per_sample()), CHANNELS),
    Case("SingularValues, MCP", lambda d: bl.SingularValues(0.7 * bl.MCP(0.9, 3.0)), MATRICES),
    Case("SingularValues, SCAD", lambda d: d.per_sample() * bl.SingularValues(bl.SCAD(0.5)), TALL),
    Case(
        "SingularValues, LogSum",
        lambda d: bl.SingularValues(per_matrix(d) * bl.LogSum(0.9)),
        CHANNELS,
    ),
    Case("SingularValues, L0", lambda d: bl.SingularValues(0.3 * bl.L0()), TALL, convex=False),
    Case("SingularValues, rank", lambda d: rank_one(), MATRICES),
    Case(
        "Anchored, rank",
        lambda d: bl.Anchored(bl.SingularValues(bl.SparseEnvelope(1)), d.x()),
        MATRICES,
    ),
    Case("Hankel", lambda d: bl.Hankel(), MATRICES, scalable=False),
    Case("HalfSpace", lambda d: bl.HalfSpace(d.normal(*d.event), 0.3), scalable=False),
    Case("HalfSpace, per sample", lambda d: bl.HalfSpace(d.x(), d.offset()), IMAGE, scalable=False),
    Case("Hyperplane", lambda d: bl.Hyperplane(d.normal(*d.event), 0.3), scalable=False),
    Case("Hyperplane, each", lambda d: bl.Hyperplane(d.x(), d.offset()), IMAGE, scalable=False),
    Case("HyperplaneBox", lambda d: bl.HyperplaneBox(d.normal(*d.event), 0.1, -1.0, 1.0)),
    Case("HyperplaneBox, per sample", lambda d: plane_box(d), IMAGE),
    Case("HyperplaneBox, open", lambda d: bl.HyperplaneBox(d.per_pixel(), 0.7), scalable=False),
    Case("Affine", lambda d: bl.Affine(*system(d)), scalable=False),
    Case("Affine, per sample", lambda d: bl.Affine(*system(d, d.batch)), IMAGE, scalable=False),
    Case("Affine, a point", lambda d: bl.Affine(*system(d, m=size(d))), scalable=False),
    Case("SecondOrderCone", lambda d: bl.SecondOrderCone(), scalable=False),
    Case("SecondOrderCone, dim", lambda d: bl.SecondOrderCone(dim=1), MATRICES, scalable=False),
    Case("Monotone", lambda d: bl.Monotone(), scalable=False),
    Case("Monotone, decreasing", lambda d: bl.Monotone(1, False), MATRICES, scalable=False),
    Case("PSD", lambda d: bl.PositiveSemidefinite(), (4, 4), square=True, scalable=False),
]


def per_colour(d: Draw) -> bl.Term:
    return d.positive(d.batch, 1, *d.event[1:]) * bl.TotalVariation(coupled=True)


def size(d: Draw) -> int:
    return math.prod(d.event)


def per_matrix(d: Draw) -> Tensor:
    return d.positive(d.batch, d.event[0], 1, 1)


def low_rank() -> bl.SingularValues:
    return bl.SingularValues(bl.LogSum(0.9))


def rank_one() -> bl.SingularValues:
    return bl.SingularValues(bl.SparseEnvelope(1))


def falling(levels: Tensor) -> Tensor:  # (..., n), or (B, *event) -> (B, n)
    return levels.abs().flatten(min(1, levels.ndim - 1)).sort(-1, descending=True).values


def opened(d: Draw) -> Tensor:
    bound = d.per_pixel()
    return torch.where(bound > 0.6, torch.inf, bound)


def plane_box(d: Draw) -> bl.HyperplaneBox:
    """One that 0.3 of the way between the bounds lies in."""
    normal, lower, upper = d.x(), -d.full(), d.full()
    offset = (normal * (lower + 0.3 * (upper - lower))).flatten(1).sum(1)
    return bl.HyperplaneBox(normal, offset.reshape_as(d.per_sample()), lower, upper)


def system(d: Draw, *batch: int, m: int = 2) -> tuple[Tensor, Tensor]:
    m = min(m, size(d))
    return d.normal(*batch, m, size(d)), d.normal(*batch, m)


def poisson(d: Draw, weight: Tensor) -> bl.KullbackLeibler:
    return weight * bl.KullbackLeibler(d.full(), 0.2 * d.full())


def one_hot(d: Draw) -> Tensor:
    return torch.nn.functional.one_hot(d.x().argmax(-1), d.event[-1]).to(d.dtype)


def psd(d: Draw, *batch: int) -> Tensor:
    a = d.normal(*batch, *d.event, *d.event)
    return a @ a.mT + 0.1 * torch.eye(*d.event).to(a)


def truncated(d: Draw, weight: Tensor) -> bl.TruncatedQuadratic:
    return weight * bl.TruncatedQuadratic(0.5 * weight)


def labels(d: Draw) -> Tensor:  # two groups, interleaved
    count = torch.Size(d.event).numel()
    return (torch.arange(count, device=d.device) % 2).reshape(d.event)


def envelope(d: Draw) -> bl.MoreauEnvelope:
    return bl.MoreauEnvelope(d.per_sample() * bl.L2(), d.per_sample())


def rotation(d: Draw) -> bl.Matrix:
    return bl.Matrix(torch.linalg.qr(d.normal(*d.event, *d.event))[0])


def frame(d: Draw) -> bl.Matrix:
    """Orthogonal rows of length 2."""
    return bl.Matrix(2 * rotation(d).matrix[: max(d.event[0] - 2, 1)])


def blocks(d: Draw) -> bl.Separable:
    first, second = bl.LeastSquares(), d.per_sample() * bl.MCP(0.5)
    if d.event[0] == 1:
        return bl.Separable(second)
    return bl.Separable(first, second, sizes=(1, d.event[0] - 1))


def trimmed(d: Draw) -> bl.TrimmedL1:
    return bl.TrimmedL1(4 * d.per_sample())


def turning(x: Tensor) -> Tensor:
    """Monotone, and no gradient: its Jacobian is not symmetric."""
    return x + 0.5 * x.roll(1, -1) - 0.5 * x.roll(-1, -1)


def smoother(x: Tensor) -> Tensor:
    """A symmetric smoothing, between 0 and the identity: a prox."""
    return x / 2 + x.flip(-1) / 4 + x.mean((2, 3), keepdim=True) / 4


def shrinker(x: Tensor, level: Tensor) -> Tensor:
    return x / (1 + level.square())


def wide(d: Draw) -> bl.Matrix:
    return bl.Matrix(d.normal(3, *d.event))


def own(d: Draw) -> bl.Matrix:
    """Another square matrix for each sample."""
    return bl.Matrix(d.normal(d.batch, *d.event, *d.event))


def smooth_sum(d: Draw) -> bl.Smooth:
    f = (bl.LeastSquares(d.x()) @ own(d) + 0.5 * bl.Huber(0.3, d.x())).f
    assert f is not None
    return f


OPERATORS = [
    Case("Identity", lambda d: bl.Identity(), IMAGE),
    Case("Matrix", lambda d: bl.Matrix(d.normal(3, *d.event))),
    Case("Matrix, tall", lambda d: bl.Matrix(d.normal(9, *d.event))),
    Case("Matrix, one a sample", own),
    Case("Matrix, sparse", lambda d: bl.Matrix(sparse(d))),
    Case("Matrix, columns", lambda d: bl.Matrix(d.normal(3, d.event[0])), (5, 2)),
    Case("Matrix, own, columns", lambda d: bl.Matrix(d.normal(d.batch, 3, d.event[0])), (5, 2)),
    Case(
        "Matrix, sparse, columns", lambda d: bl.Matrix(d.normal(3, d.event[0]).to_sparse()), (5, 2)
    ),
    Case("Matrix, CSR", lambda d: bl.Matrix(csr(d))),
    Case(
        "SparseMatrix",
        lambda d: bl.SparseMatrix(scipy.sparse.csc_array(sparse(d).to_dense().cpu())),
    ),
    Case("SparseMatrix, centred", lambda d: centred(d)),
    Case("Gradient, 1-D", lambda d: bl.Gradient(dims=1)),
    Case("Gradient, 2-D", lambda d: bl.Gradient(), IMAGE),
    Case("Gradient, 3-D", lambda d: bl.Gradient(dims=3), VOLUME),
    Case("Convolution, 1-D", lambda d: bl.Convolution(d.normal(3, 1, 2)), (1, 5)),
    Case("Convolution, 2-D", lambda d: bl.Convolution(d.normal(3, 1, 2, 2)), IMAGE),
    Case("Convolution, padded", lambda d: bl.Convolution(d.normal(2, 1, 3, 3), padding=1), IMAGE),
    Case("Convolution, large image", lambda d: bl.Convolution(d.normal(4, 1, 2, 2)), (1, 16, 17)),
    Case("Convolution, 3-D", lambda d: bl.Convolution(d.normal(2, 1, 2, 2, 2)), VOLUME),
    Case("Blur", lambda d: bl.Blur(d.positive(*small(d, 3, 3))), IMAGE),
    Case("Blur, even", lambda d: bl.Blur(d.normal(*small(d, 2, 4)), bl.Zero()), IMAGE),
    Case("Blur, periodic", lambda d: bl.Blur(d.normal(*small(d, 4, 3)), bl.Periodic()), IMAGE),
    Case("Blur, as large as the image", lambda d: bl.Blur(d.positive(*d.event[-2:])), IMAGE),
    Case("Blur, one a sample", lambda d: bl.Blur(d.positive(d.batch, *small(d, 2, 3))), IMAGE),
    Case(
        "Blur, periodic, one a sample",
        lambda d: bl.Blur(d.normal(d.batch, *small(d, 3, 2)), bl.Periodic()),
        IMAGE,
    ),
    Case("Mask", lambda d: bl.Mask(d.normal(*d.event[-2:])), IMAGE),
    Case("Mask, bool", lambda d: bl.Mask(d.normal(*d.event) > 0), IMAGE),
    Case("Mask, one a sample", lambda d: bl.Mask(d.normal(d.batch, *d.event)), IMAGE),
    Case(
        "Mask, complex", lambda d: bl.Mask(d.normal(*d.event[-2:])), IMAGE, dtype=torch.complex128
    ),
    Case("FFT, 1-D", lambda d: bl.FFT(dims=1)),
    Case("FFT", lambda d: bl.FFT(), IMAGE),
    Case("FFT, complex", lambda d: bl.FFT(real=False), IMAGE, dtype=torch.complex128),
    Case("FFT, masked", lambda d: bl.Mask(d.normal(*d.event[-2:]) > 0) @ bl.FFT(), IMAGE),
    Case("AsComplex", lambda d: bl.AsComplex(), (3, 2), kept=2),
    Case("AsReal", lambda d: bl.AsReal() @ bl.FFT(), IMAGE),
    Case("AsReal, complex", lambda d: bl.AsReal(), IMAGE, dtype=torch.complex128),
    Case("DCT, 1-D", lambda d: bl.DCT(dims=1)),
    Case("DCT", lambda d: bl.DCT(), IMAGE),
    Case("DCT, 3-D", lambda d: bl.DCT(dims=3), VOLUME),
    Case("Downsample", lambda d: bl.Downsample(2), (1, 4, 6), kept=3),
    Case("Downsample, average", lambda d: bl.Downsample(2, average=True), (1, 4, 6), kept=3),
    Case("SymmetrizedGradient, 1-D", lambda d: bl.SymmetrizedGradient(1), (1, 6), kept=1),
    Case("SymmetrizedGradient", lambda d: bl.SymmetrizedGradient(), (2, 4, 5), kept=1),
    Case("SymmetrizedGradient, 3-D", lambda d: bl.SymmetrizedGradient(3), (3, 3, 4, 2), kept=1),
    Case("Hessian", lambda d: bl.Hessian(), IMAGE),
    Case("Hessian, 3-D", lambda d: bl.Hessian(3), VOLUME),
    Case("Laplacian", lambda d: bl.Laplacian(), IMAGE),
    Case("Laplacian, 1-D", lambda d: bl.Laplacian(1)),
    Case("Part", lambda d: bl.Part(0, of=3), (3, 4), kept=1),
    Case("Part, a slice", lambda d: bl.Part(slice(1, 3), of=4, dim=-1), (3, 4), kept=2),
    Case("Sum", lambda d: wide(d) + wide(d)),
    Case("Sum, one a sample", lambda d: bl.Identity() - own(d)),
    Case("Scaled", lambda d: -2.0 * wide(d)),
    Case("Scaled, one a sample", lambda d: d.positive(1)[0] * own(d)),
    Case("Radon", lambda d: bl.Radon(3 * d.positive(4)), (1, 6, 6), square=True),
    Case("Wavelet", lambda d: bl.Wavelet(), (1, 4, 6), kept=3),
    Case("Wavelet, db3, two levels", lambda d: bl.Wavelet("db3", 2), (1, 8, 12), kept=3),
    Case("Wavelet, 1-D", lambda d: bl.Wavelet("sym4", 1, dims=1), (6,), kept=1),
    Case("FromPyLops", lambda d: bl.FromPyLops(slopes(d)), IMAGE),
    Case("FromPyLops, a matrix", lambda d: bl.FromPyLops(product(d))),
    Case("FromDeepinv", lambda d: bl.FromDeepinv(bl.to_deepinv(wide(d)))),
    Case("Groups", lambda d: bl.Groups(pairs(d), *d.event)),
    Case("Stack", lambda d: bl.Stack(wide(d), wide(d))),
    Case("Stack, one a sample", lambda d: bl.Stack(own(d), bl.Identity())),
    Case("Composite", lambda d: bl.Gradient(dims=1) @ wide(d)),
    Case("Composite, one a sample", lambda d: bl.Gradient(dims=1) @ own(d)),
]


def pairs(d: Draw) -> Tensor:
    return torch.tensor([[0, 1, -1], [1, 0, 1]], device=d.device)


def small(d: Draw, height: int, width: int) -> tuple[int, int]:
    """The size of a kernel, no larger than the image."""
    return min(height, d.event[-2]), min(width, d.event[-1])


def slopes(d: Draw) -> pylops.LinearOperator:
    return pylops.FirstDerivative(d.event[-2:], axis=0, kind="forward")


def product(d: Draw) -> pylops.LinearOperator:
    return pylops.MatrixMult(d.normal(3, *d.event).cpu().numpy())


def sparse(d: Draw) -> Tensor:
    a = d.normal(4, *d.event)
    return torch.where(a > 0, a, 0.0).to_sparse_coo()


def centred(d: Draw) -> bl.SparseMatrix:
    return bl.SparseMatrix(
        scipy.sparse.csr_array(sparse(d).to_dense().cpu()), d.normal(*d.event).cpu().numpy()
    )


def csr(d: Draw) -> Tensor:
    import warnings

    with warnings.catch_warnings():  # torch calls its CSR tensors a beta feature
        warnings.simplefilter("ignore")
        return sparse(d).to_dense().to_sparse_csr()


SOLVERS: list[type[bl.Solver]] = [
    bl.GradientDescent,
    bl.ForwardBackward,
    bl.PrimalDual,
    bl.InteriorPoint,
    bl.LawsonHanson,
    bl.LinearProgram,
    bl.SplitPenalties,
    bl.Newton,
    bl.DouglasRachford,
    bl.DavisYin,
    bl.ADMM,
    bl.DirectProx,
    bl.ExtraGradient,
    bl.Optimistic,
    bl.MirrorDescent,
    bl.BregmanPrimalDual,
    bl.Celer,
]

# Each acceleration with the solvers and the problems of `problems.py` it is for.
ACCELERATIONS: list[tuple[bl.Acceleration, type[bl.Solver], tuple[str, ...]]] = [
    (bl.Plain(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.Plain(), bl.ForwardBackward, ("lasso", "simplex_least_squares")),
    (bl.Plain(), bl.PrimalDual, ("lasso", "tv1d_composed")),
    (bl.OverRelaxation(1.2), bl.ForwardBackward, ("lasso",)),
    (bl.OverRelaxation(), bl.PrimalDual, ("tv1d_composed", "l1_analysis_box")),
    (bl.Nesterov(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.Nesterov(), bl.ForwardBackward, ("lasso", "elastic_net", "group_lasso")),
    (bl.Accelerated(), bl.PrimalDual, ("tv1d_composed", "tv2d_anisotropic")),
    (bl.Halpern(), bl.PrimalDual, ("lasso", "tv1d_composed", "l1_analysis_box", "tv2d_isotropic")),
    (bl.Halpern(), bl.ForwardBackward, ("lasso",)),
    (bl.Rebalanced(), bl.PrimalDual, ("l1_analysis_box", "tv2d_isotropic")),
    (bl.ExactLineSearch(), bl.GradientDescent, ("ridge",)),
    (bl.Backtracking(), bl.GradientDescent, ("logistic",)),
    (bl.Backtracking(), bl.ForwardBackward, ("lasso", "box_least_squares")),
    (bl.Armijo(), bl.Newton, ("ridge", "logistic")),
    (bl.Armijo(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.LBFGS(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.LBFGS(memory=3), bl.GradientDescent, ("ridge",)),
    (bl.OverRelaxation(), bl.DouglasRachford, ("l2_ball_projection",)),
    (bl.OverRelaxation(1.5), bl.DavisYin, ("simplex_below_a_bound",)),
    (bl.OverRelaxation(), bl.ADMM, ("tv1d_composed", "tv2d_anisotropic", "tv2d_isotropic")),
    (bl.Plain(), bl.ADMM, ("tv1d_composed", "l1_analysis_box")),
    (bl.Halpern(), bl.ADMM, ("tv1d_composed",)),
    (bl.AndersonMixing(), bl.ForwardBackward, ("lasso", "group_lasso")),
    (bl.AndersonMixing(), bl.PrimalDual, ("tv1d_composed",)),
    (bl.AndersonMixing(), bl.ADMM, ("tv1d_composed", "l1_analysis_box")),
    (bl.Broyden(), bl.ForwardBackward, ("lasso", "ridge")),
    (bl.Guarded(bl.CoordinatewiseLSTM(4)), bl.GradientDescent, ("ridge", "logistic")),
    (bl.CoordinatewiseLSTM(4), bl.GradientDescent, ("ridge",)),  # untrained: the heavy ball
    (bl.LearnedLineSearch(4), bl.GradientDescent, ("ridge",)),
]

LINEAR_SOLVERS: list[bl.LinearSolver] = [
    bl.CG(),  # symmetric systems only
    bl.BiCGStab(),
    bl.GMRES(),
    bl.Neumann(terms=1000),
    bl.Anderson(),
    bl.Dense(),
]

STRATEGIES: list[bl.Strategy] = [
    bl.FixedPoint(),
    bl.Implicit(),
    bl.Implicit(recompute=True),
    bl.FlatZones(),
    bl.PartlySmooth(),
    bl.Unroll(),
    bl.Unroll(segment=50),
    bl.Unroll(last=2000, segment=50),
    bl.Truncated(2000),
    bl.Truncated(error=1e-6),
    bl.OneStep(),
    bl.Piggyback(bl.LeastSquares()),
    bl.Smoothed(1e-3),
]
