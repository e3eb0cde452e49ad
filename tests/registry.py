"""Every object of the library, with a small instance: add yours by one line; the laws run on it.

`test_registry.py` fails when a public class is missing here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pylops
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

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def normal(self, *shape: int) -> Tensor:
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        return torch.randn(shape, generator=self.generator, dtype=wide).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        """In [0.2, 1]."""
        uniform = torch.rand(shape, generator=self.generator, dtype=torch.float64)
        return (0.2 + 0.8 * uniform).to(self.dtype)

    def x(self) -> Tensor:
        return self.normal(self.batch, *self.event)

    def per_sample(self) -> Tensor:
        return self.positive(self.batch, *[1] * len(self.event))

    def per_pixel(self) -> Tensor:
        return self.positive(*self.event)

    def full(self) -> Tensor:  # another weight for each pixel of each sample
        return self.positive(self.batch, *self.event)

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
    valued: bool = True  # whether a function stands behind its prox
    dtype: torch.dtype = torch.float64  # of x

    def __str__(self) -> str:
        return self.name


IMAGE, VOLUME = (1, 4, 5), (1, 3, 4, 2)


def cosh(x: Tensor) -> Tensor:
    return (x.cosh() - 1).flatten(1).sum(1)


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
    Case("TotalVariation, 1-D", lambda d: 0.3 * bl.TotalVariation(dims=1)),
    Case("TotalVariation, 2-D", lambda d: 0.3 * bl.TotalVariation(), IMAGE),
    Case("TotalVariation, 3-D", lambda d: 0.3 * bl.TotalVariation(dims=3), VOLUME),
    Case("TotalVariation, aniso", lambda d: bl.TotalVariation(isotropic=False), IMAGE),
    Case("TotalVariation, per sample", lambda d: d.per_sample() * bl.TotalVariation(), IMAGE),
    Case("TotalVariation, per pixel", lambda d: d.full() * bl.TotalVariation(), IMAGE),
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
    Case("Orthogonal, a frame", lambda d: bl.Orthogonal(d.per_sample() * bl.L1(), frame(d), 4.0)),
    Case("Separable", lambda d: blocks(d), (5, 2)),
    Case("PlugAndPlay", lambda d: bl.PlugAndPlay(smoother), IMAGE, indexable=False, valued=False),
    Case(
        "PlugAndPlay, leveled",
        lambda d: 0.5 * bl.PlugAndPlay(shrinker, True),
        indexable=False,
        valued=False,
    ),
    Case("SmoothComposition", lambda d: bl.LeastSquares(d.normal(d.batch, 3)) @ wide(d)),
    Case("SmoothComposition, own", lambda d: bl.Logistic(d.signs()) @ own(d)),
    Case("Composition", lambda d: 0.4 * bl.L1() @ wide(d)),
    Case("SmoothSum", lambda d: smooth_sum(d)),
]


def poisson(d: Draw, weight: Tensor) -> bl.KullbackLeibler:
    return weight * bl.KullbackLeibler(d.full(), 0.2 * d.full())


def one_hot(d: Draw) -> Tensor:
    return torch.nn.functional.one_hot(d.x().argmax(-1), d.event[-1]).to(d.dtype)


def psd(d: Draw, *batch: int) -> Tensor:
    a = d.normal(*batch, *d.event, *d.event)
    return a @ a.mT + 0.1 * torch.eye(*d.event, dtype=d.dtype)


def truncated(d: Draw, weight: Tensor) -> bl.TruncatedQuadratic:
    return weight * bl.TruncatedQuadratic(0.5 * weight)


def labels(d: Draw) -> Tensor:  # two groups, interleaved
    count = torch.Size(d.event).numel()
    return (torch.arange(count) % 2).reshape(d.event)


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
    Case("Matrix, CSR", lambda d: bl.Matrix(csr(d))),
    Case("Gradient, 1-D", lambda d: bl.Gradient(dims=1)),
    Case("Gradient, 2-D", lambda d: bl.Gradient(), IMAGE),
    Case("Gradient, 3-D", lambda d: bl.Gradient(dims=3), VOLUME),
    Case("Convolution, 1-D", lambda d: bl.Convolution(d.normal(3, 1, 2)), (1, 5)),
    Case("Convolution, 2-D", lambda d: bl.Convolution(d.normal(3, 1, 2, 2)), IMAGE),
    Case("Convolution, padded", lambda d: bl.Convolution(d.normal(2, 1, 3, 3), padding=1), IMAGE),
    Case("Convolution, 3-D", lambda d: bl.Convolution(d.normal(2, 1, 2, 2, 2)), VOLUME),
    Case("Groups", lambda d: bl.Groups(torch.tensor([[0, 1, -1], [1, 0, 1]]), *d.event)),
    Case("Blur", lambda d: bl.Blur(d.positive(3, 3)), IMAGE),
    Case("Blur, even", lambda d: bl.Blur(d.normal(2, 4), bl.Zero()), IMAGE),
    Case("Blur, periodic", lambda d: bl.Blur(d.normal(4, 3), bl.Periodic()), IMAGE),
    Case("Blur, as large as the image", lambda d: bl.Blur(d.positive(4, 5)), IMAGE),
    Case("Blur, one a sample", lambda d: bl.Blur(d.positive(d.batch, 2, 3)), IMAGE),
    Case(
        "Blur, periodic, one a sample",
        lambda d: bl.Blur(d.normal(d.batch, 3, 2), bl.Periodic()),
        IMAGE,
    ),
    Case("Mask", lambda d: bl.Mask(d.normal(4, 5)), IMAGE),
    Case("Mask, bool", lambda d: bl.Mask(d.normal(1, 4, 5) > 0), IMAGE),
    Case("Mask, one a sample", lambda d: bl.Mask(d.normal(d.batch, 1, 4, 5)), IMAGE),
    Case("Mask, complex", lambda d: bl.Mask(d.normal(4, 5)), IMAGE, dtype=torch.complex128),
    Case("FFT, 1-D", lambda d: bl.FFT(dims=1)),
    Case("FFT", lambda d: bl.FFT(), IMAGE),
    Case("FFT, complex", lambda d: bl.FFT(real=False), IMAGE, dtype=torch.complex128),
    Case("FFT, masked", lambda d: bl.Mask(d.normal(4, 5) > 0) @ bl.FFT(), IMAGE),
    Case("AsComplex", lambda d: bl.AsComplex(), (3, 2)),
    Case("AsReal", lambda d: bl.AsReal() @ bl.FFT(), IMAGE),
    Case("AsReal, complex", lambda d: bl.AsReal(), IMAGE, dtype=torch.complex128),
    Case("DCT, 1-D", lambda d: bl.DCT(dims=1)),
    Case("DCT", lambda d: bl.DCT(), IMAGE),
    Case("DCT, 3-D", lambda d: bl.DCT(dims=3), VOLUME),
    Case("Downsample", lambda d: bl.Downsample(2), (1, 4, 6)),
    Case("Downsample, average", lambda d: bl.Downsample(2, average=True), (1, 4, 6)),
    Case("SymmetrizedGradient, 1-D", lambda d: bl.SymmetrizedGradient(1), (1, 6)),
    Case("SymmetrizedGradient", lambda d: bl.SymmetrizedGradient(), (2, 4, 5)),
    Case("SymmetrizedGradient, 3-D", lambda d: bl.SymmetrizedGradient(3), (3, 3, 4, 2)),
    Case("Hessian", lambda d: bl.Hessian(), IMAGE),
    Case("Hessian, 3-D", lambda d: bl.Hessian(3), VOLUME),
    Case("Laplacian", lambda d: bl.Laplacian(), IMAGE),
    Case("Laplacian, 1-D", lambda d: bl.Laplacian(1)),
    Case("Part", lambda d: bl.Part(0, of=3), (3, 4)),
    Case("Part, a slice", lambda d: bl.Part(slice(1, 3), of=4, dim=-1), (3, 4)),
    Case("Sum", lambda d: wide(d) + wide(d)),
    Case("Sum, one a sample", lambda d: bl.Identity() - own(d)),
    Case("Scaled", lambda d: -2.0 * wide(d)),
    Case("Scaled, one a sample", lambda d: d.positive(1)[0] * own(d)),
    Case("Radon", lambda d: bl.Radon(3 * d.positive(4)), (1, 6, 6)),
    Case("Wavelet", lambda d: bl.Wavelet(), (1, 4, 6)),
    Case("Wavelet, db3, two levels", lambda d: bl.Wavelet("db3", 2), (1, 8, 12)),
    Case("Wavelet, 1-D", lambda d: bl.Wavelet("sym4", 1, dims=1), (6,)),
    Case("FromPyLops", lambda d: bl.FromPyLops(pylops.FirstDerivative((4, 5), axis=0)), IMAGE),
    Case(
        "FromPyLops, a matrix", lambda d: bl.FromPyLops(pylops.MatrixMult(d.normal(3, 5).numpy()))
    ),
    Case("FromDeepinv", lambda d: bl.FromDeepinv(bl.to_deepinv(wide(d)))),
    Case("Stack", lambda d: bl.Stack(wide(d), wide(d))),
    Case("Stack, one a sample", lambda d: bl.Stack(own(d), bl.Identity())),
    Case("Composite", lambda d: bl.Gradient(dims=1) @ wide(d)),
    Case("Composite, one a sample", lambda d: bl.Gradient(dims=1) @ own(d)),
]


def sparse(d: Draw) -> Tensor:
    a = d.normal(4, *d.event)
    return torch.where(a > 0, a, 0.0).to_sparse_coo()


def csr(d: Draw) -> Tensor:
    import warnings

    with warnings.catch_warnings():  # torch calls its CSR tensors a beta feature
        warnings.simplefilter("ignore")
        return sparse(d).to_dense().to_sparse_csr()


SOLVERS: list[type[bl.Solver]] = [bl.GradientDescent, bl.ForwardBackward, bl.PrimalDual]

# Each acceleration with the solvers and the problems of `problems.py` it is for.
ACCELERATIONS: list[tuple[bl.Acceleration, type[bl.Solver], tuple[str, ...]]] = [
    (bl.Plain(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.Plain(), bl.ForwardBackward, ("lasso", "simplex_least_squares")),
    (bl.Plain(), bl.PrimalDual, ("lasso", "tv1d")),
    (bl.OverRelaxation(1.2), bl.ForwardBackward, ("lasso",)),
    (bl.OverRelaxation(), bl.PrimalDual, ("tv1d", "l1_analysis_box")),
    (bl.Nesterov(), bl.GradientDescent, ("ridge", "logistic")),
    (bl.Nesterov(), bl.ForwardBackward, ("lasso", "elastic_net", "group_lasso")),
    (bl.Accelerated(), bl.PrimalDual, ("tv1d", "tv2d_anisotropic")),
    (bl.Halpern(), bl.PrimalDual, ("lasso", "tv1d", "l1_analysis_box", "tv2d_isotropic")),
    (bl.Halpern(), bl.ForwardBackward, ("lasso",)),
    (bl.ExactLineSearch(), bl.GradientDescent, ("ridge",)),
    (bl.Backtracking(), bl.GradientDescent, ("logistic",)),
    (bl.Backtracking(), bl.ForwardBackward, ("lasso", "box_least_squares")),
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
    bl.Unroll(),
    bl.Unroll(segment=50),
    bl.Unroll(last=2000, segment=50),
    bl.Truncated(2000),
    bl.OneStep(),
]
