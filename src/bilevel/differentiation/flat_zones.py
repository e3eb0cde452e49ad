"""The derivative of an image denoised by total variation: on its flat zones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import Function

from .._broadcast import binary_unit, expand, norm_event
from .._tangents import constant
from ..errors import NotConverged, fail
from ..problem import Problem
from .base import Strategy
from .implicit import solution

if TYPE_CHECKING:
    from ..fixpoint import Fixpoint
    from ..iteration.driver import Run
    from ..kernels.denoising import Denoising
    from ..kernels.flat_image import Image

Z = tuple[Tensor, ...]
_LOOSEST = 1e-2  # relative residual of the adjoint, whatever the gap


@dataclass(frozen=True)
class FlatZones(Strategy):
    """dx/dθ of LeastSquares + TotalVariation in two dims, where the flat zones stay what they are.

    The zones are the components of the graph of the differences that the dual holds at 0. Small
    changes of x are constant on each: u, one number a zone. With E from zones to pixels, bent the
    pixels that jump, and n = Dx / |Dx| there,

        E* (mu + D* C D) E u = E* (mu dtarget - (x - target) dmu - D* n dweight),
        C = weight / |Dx| (1 - n n*) where bent, isotropic; 0 else.

    Anisotropic: u is the mean over each zone. Isotropic: by conjugate gradients, one product in
    O(pixels); memory O(pixels). Jumps below the error of x, as the duality gap bounds it, count as
    none: on photographs this leaves the derivative a relative error of 30 sqrt(gap) and more. So
    the system is solved to 10 sqrt(gap), 1e-2 at most, unless an `accuracy` says to what: beside
    the gap's share, a twentieth to a fifth more in all for a squared error. C divides by no |Dx|
    below five times the error of x: less is too uncertain, and more so its inverse. First
    derivatives of x only, in backward mode.
    [1] Vaiter, Deledalle, Peyre, Fadili, Dossal. The degrees of freedom of partly smooth
        regularizers. Ann. Inst. Stat. Math., 2017.
    """

    settles: ClassVar[bool] = False  # the gap bounds the error of x, and so which jumps are sure

    def __call__(self, run: Run, fixpoint: Fixpoint, z0: Z) -> Z:
        energy = covered(fixpoint.problem, fixpoint.primal(z0))
        if energy is None:
            raise _beyond(fixpoint.problem, fixpoint.primal(z0))
        return on_zones(run, fixpoint, energy, solution(run, fixpoint, z0))


def on_zones(run: Run, fixpoint: Fixpoint, energy: Denoising, point: Z) -> Z:
    """z at the solution (x, y), with the first derivative of x."""
    x, y = point
    with constant():
        manifold = Zones.at(fixpoint.problem, energy, x, y, run)
    shape = energy.target.shape
    moved = _Solution.apply(
        energy.target, energy.even(), energy.weight, x.reshape(shape), manifold, run
    )
    x = moved.reshape(x.shape)  # type: ignore[union-attr]
    held: Tensor = _Held.apply(y, x)  # type: ignore[assignment]
    return fixpoint.solver.assemble(fixpoint.problem, x, (held,))


def covered(problem: Problem, x: Tensor) -> Denoising | None:
    """The problem as the zones' formula knows it; None for any other."""
    from ..kernels.denoising import Denoising  # compiled when first used

    energy = Denoising.of(problem, x)
    return None if energy is None or energy.even() is None else energy


def _beyond(problem: Problem, x: Tensor) -> TypeError:
    return TypeError(
        "FlatZones differentiates LeastSquares(target) + TotalVariation() in two dims, on the "
        "CPU, in float32 or float64, with one weight of LeastSquares a sample; got "
        f"{' + '.join(type(term).__name__ for term in problem.terms)} on {x.device} in "
        f"{x.dtype}. Use FixedPoint()."
    )


@dataclass(frozen=True, eq=False)
class Zones:
    """The manifold of one batch of images at (x, y), and the system on it."""

    images: list[Image]
    tols: list[float]  # relative, of the system of each image

    @staticmethod
    def at(problem: Problem, energy: Denoising, x: Tensor, y: Tensor, run: Run) -> Zones:
        from ..kernels.arrays import array
        from ..kernels.flat_image import Image

        n, c, h, w = energy.target.shape
        error = problem.distance(x, (y,))
        assert error is not None, "the problem has a gap and is strongly convex"
        each = n // max(len(x), 1)  # images a sample
        # a root mean square, of a sample and so of its images
        floor = (error / max(x.shape[1:].numel(), 1) ** 0.5).repeat_interleave(each)
        xs, ys = array(x.reshape(n, c, h, w)), array(y.reshape(n, c, 2, h, w))
        mu = energy.even()
        assert mu is not None, "covered"
        weight, mus, floors = array(energy.weight), array(mu), array(floor)
        images = [
            Image.at(xs[i], ys[i], weight[i], mus[i], energy.isotropic, floors[i]) for i in range(n)
        ]
        return Zones(images, _tols(run).repeat_interleave(each).tolist())

    def solve(self, g: Tensor) -> tuple[Tensor, np.ndarray]:
        """(P (P A P)^+ P g, (relative residual, products) one an image), A the Hessian."""
        from ..kernels.arrays import array
        from ..kernels.compiled import spread

        unit = binary_unit(g, norm_event(g))
        source = array(g if unit is None else g / expand(unit, g))
        p = np.empty(g.shape, source.dtype)
        found = np.zeros((len(source), 2))

        def one(i: int) -> None:
            found[i] = self.images[i].solve(source[i], self.tols[i], p[i])

        spread(one, [(i,) for i in range(len(source))])
        of_unit = torch.from_numpy(p)
        return of_unit if unit is None else expand(unit, g) * of_unit, found

    def slopes(self, p: Tensor, rows: int) -> Tensor:  # (N, C, H, W) -> (N, rows, W)
        """The derivative of |Dx| along p, where x jumps; one row: summed over each column."""
        from ..kernels.arrays import array
        from ..kernels.flat_loops import slope

        source = array(p)
        out = np.empty((len(source), rows, source.shape[-1]), source.dtype)
        for i, image in enumerate(self.images):
            slope(image.direction, source[i], out[i])
        return torch.from_numpy(out)


class _Solution(Function):
    """x(target, mu, weight), with its first derivative."""

    @staticmethod
    def forward(ctx, target: Tensor, mu: Tensor, weight: Tensor, x: Tensor, zones: Zones, run: Run):
        ctx.save_for_backward(target, mu, weight, x)
        ctx.zones, ctx.run = zones, run
        return x.clone()

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        asked = ctx.needs_input_grad[:3]
        found = _Adjoint.apply(g, *ctx.saved_tensors, ctx.zones, ctx.run, asked)
        return *found, None, None, None  # type: ignore[misc]


class _Adjoint(Function):
    """g -> the gradients of <g, x(target, mu, weight)>, of those asked for."""

    @staticmethod
    def forward(
        ctx,
        g: Tensor,
        target: Tensor,
        mu: Tensor,
        weight: Tensor,
        x: Tensor,
        zones: Zones,
        run: Run,
        asked: tuple[bool, bool, bool],
    ):
        p, found = zones.solve(g)
        _judge(run, torch.from_numpy(found), torch.tensor(zones.tols, dtype=torch.float64))
        of_target = of_mu = of_weight = None
        if asked[1]:
            of_mu = -((x - target) * p).flatten(1).sum(1)
        if asked[2]:
            of_weight = -zones.slopes(p, weight.shape[1])
        if asked[0]:
            of_target = p.mul_(mu[:, None, None, None])
        return of_target, of_mu, of_weight

    @staticmethod
    def backward(ctx, *_: Tensor):
        raise RuntimeError(
            "a second derivative of a solution was asked for, and FlatZones gives the first only. "
            "Pass diff=FixedPoint() to argmin."
        )


class _Held(Function):
    """A dual that is read, but has no derivative: it is not unique on the zones."""

    @staticmethod
    def forward(ctx, y: Tensor, x: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx, g: Tensor):  # type: ignore[override]
        if bool(g.any()):
            raise RuntimeError(
                "the derivative of a dual was asked for, and FlatZones differentiates x only. Pass "
                "diff=FixedPoint()."
            )
        return None, None


def _tols(run: Run) -> Tensor:  # -> (B,)
    """What suffices for the adjoint beside the error that the gap leaves in the zones."""
    gap = run.certificate.gap
    assert gap is not None, "covered problems have one"
    if run.asked_adjoint_tol is not None:
        return torch.full_like(gap, run.asked_adjoint_tol)
    return (10 * gap.clamp_min(0).sqrt()).clamp(min(run.adjoint_tol, _LOOSEST), _LOOSEST)


def _judge(run: Run, found: Tensor, tols: Tensor) -> None:  # (N, 2), (N,)
    """Write the certificate; raise or warn for an adjoint that was not solved."""
    certificate, (residual, products) = run.certificate, found.unbind(1)
    assert certificate.gap is not None  # the residual would be measured now
    samples = len(certificate.gap)
    rows = residual.reshape(samples, -1).amax(1) if samples else residual
    certificate.adjoint_residual = rows
    certificate.adjoint_iterations = int(products.max()) if len(products) else 0
    certificate.update_estimate()
    late = ~(residual <= tols)
    if bool(late.any()):
        fail(
            NotConverged(
                f"the adjoint solve ended at a relative residual of {float(residual.max()):.1e}, "
                f"asked was {float(tols.min()):.0e}, after {int(products.max())} products. Loosen "
                "tol, or accept it with on_fail='warn'."
            ),
            run.on_fail,
        )
