"""PrimalDual on mu/2 |x - target|^2 + weight TV(x), in two dims on the CPU: T, sweeps and gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from .._broadcast import Scalar, expand
from ..problem import Problem
from ..terms.smooth import LeastSquares
from ..terms.total_variation import TotalVariation
from .compiled import announced, spread

Z = tuple[Tensor, ...]
_FACTORED = 2**13  # unknowns up to which a sparse factor is made


@dataclass(frozen=True, eq=False)
class Denoising:
    """The images of a batch in a row, (N, C, H, W), C the channels that one norm couples, else 1;
    mu one an image, the weight one an image and column, or pixel. With their history."""

    target: Tensor  # (N, C, H, W)
    weight: Tensor  # (N, 1 or H, W)
    mu: Tensor  # (N,)
    isotropic: bool

    @staticmethod
    def of(problem: Problem, x: Tensor) -> Denoising | None:
        """A problem of this shape, None for any other."""
        terms = sorted(problem.terms, key=lambda term: type(term).__name__)
        if [type(term) for term in terms] != [LeastSquares, TotalVariation]:
            return None
        data, tv = terms
        assert isinstance(data, LeastSquares) and isinstance(tv, TotalVariation)
        if tv.dims != 2 or x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
            return None
        if tv.coupled and not tv.isotropic:
            return None
        image = image_of(tv, x)
        mu = per_image(data.weight, x, image)
        if mu is None or not bool((mu > 0).all()):
            return None
        target = torch.as_tensor(data.target, dtype=x.dtype).expand_as(x).reshape(-1, *image)
        return Denoising(target, _per_pixel(tv.weight, x, image), mu, tv.isotropic)


def image_of(tv: TotalVariation, x: Tensor) -> torch.Size:
    """(C, H, W), the shape of what one norm couples."""
    return x.shape[-3:] if tv.coupled else torch.Size((1, *x.shape[-2:]))


@dataclass(frozen=True, eq=False)
class ROF:
    """PrimalDual on images, with the two steps of T, one an image.

    Images are shared among threads, and one image stays with one: bands of rows that exchange
    borders every 16 sweeps took 1.4 times as long on two cores, for their copies.
    """

    target: np.ndarray  # as Denoising
    weight: np.ndarray
    mu: np.ndarray
    isotropic: bool
    steps: tuple[np.ndarray, np.ndarray]  # tau, sigma: (N,)

    @staticmethod
    def of(problem: Problem, steps: tuple[Scalar, Scalar], z: Z) -> ROF | None:
        """The kernel for a problem of this shape, None for any other."""
        energy = Denoising.of(problem, z[0])
        if energy is None:
            return None
        image = energy.target.shape[1:]
        spread_out = [per_image(expand(step, z[0]), z[0], image) for step in steps]
        if any(step is None for step in spread_out):
            return None
        fields = (energy.target, energy.weight, energy.mu, *spread_out)
        target, weight, mu, tau, sigma = (array(field) for field in fields)  # type: ignore[arg-type]
        return ROF(target, weight, mu, energy.isotropic, (tau, sigma))

    def T(self, z: Z) -> Z:
        z = tuple(part.clone(memory_format=torch.contiguous_format) for part in z)
        return self._advance(z, [*(step[None] for step in self.steps), np.ones((1, len(self.mu)))])

    def sweeps(
        self, z: Z, tau: Sequence[Scalar], sigma: Sequence[Scalar], theta: Sequence[Scalar]
    ) -> Z:
        """PrimalDual.sweep with each of the steps in turn, one number or one a sample; in z's own
        memory, if it is contiguous."""
        return self._advance(z, [self._schedule(numbers, z[0]) for numbers in (tau, sigma, theta)])

    def _advance(self, z: Z, schedule: list[np.ndarray]) -> Z:  # of (steps, N)
        schedule = [steps.astype(self.target.dtype, copy=False) for steps in schedule]
        z = tuple(part.detach().contiguous() for part in z)
        x, x_bar, y = self._views(z)
        y[..., 0, -1, :], y[..., 1, :, -1] = 0, 0  # read by nobody
        _compile(self.target.dtype)
        spread(self._image, [(i, x, x_bar, y, schedule) for i in range(len(x))])
        return z

    def gap(self, z: Z, floor: Tensor | float) -> Tensor:  # -> (B,)
        """As Problem.gap."""
        gap, primal = self._energies(z)
        size = torch.maximum(primal, (primal - gap).abs()).clamp_min(torch.finfo(z[0].dtype).tiny)
        return (gap / torch.maximum(size, torch.as_tensor(floor).to(size))).to(z[0].dtype)

    def value(self, z: Z) -> Tensor:  # -> (B,)
        """As Problem.value."""
        return self._energies(z)[1].to(z[0].dtype)

    @property
    def small(self) -> bool:
        """Whether `finish` can be had, and takes seconds at most."""
        finite = np.isfinite(self.weight).all() and np.isfinite(self.target).all()
        few = 0 < self.target.size <= _FACTORED
        return few and self.target.dtype == np.float64 and bool(finite)

    def finish(self, z: Z) -> Z:
        """The solution to rounding, from a z that is near."""
        from ..finish import Finish

        x, _, y = self._views(z)
        pairs = [Finish(*self._constant(i))(x[i], y[i]) for i in range(len(x))]
        new, dual = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        new = new.reshape(z[0].shape)
        return new, new, dual.reshape(z[2].shape)

    def _energies(self, z: Z) -> tuple[Tensor, Tensor]:
        """(P - D, P), both (B,) in float64."""
        from .rof_loops import energies

        x, _, y = self._views(z)
        found = np.empty((len(x), 2))

        def one(i: int) -> None:
            found[i] = energies(*self._constant(i), x[i], y[i])

        spread(one, [(i,) for i in range(len(x))])
        batch = len(z[0])
        each = torch.from_numpy(found).reshape(batch, len(x) // max(batch, 1), 2)
        gap, primal = each.sum(1).unbind(1)
        return gap, primal

    def _views(self, z: Z) -> list[np.ndarray]:
        """(N, C, H, W) of x and x_bar, (N, C, 2, H, W) of y, on the memory of a contiguous z."""
        n, c, h, w = self.target.shape
        shapes = ((n, c, h, w), (n, c, h, w), (n, c, 2, h, w))
        return [array(part.reshape(s)) for part, s in zip(z, shapes, strict=True)]

    def _schedule(self, numbers: Sequence[Scalar], x: Tensor) -> np.ndarray:  # -> (steps, N)
        if all(isinstance(number, float) for number in numbers):
            column = np.array(numbers, dtype=self.target.dtype)[:, None]
            return np.broadcast_to(column, (len(numbers), len(self.target)))
        image = self.target.shape[1:]
        return np.stack([array(per_image(expand(number, x), x, image)) for number in numbers])  # type: ignore[arg-type]

    @property
    def _tiny(self) -> np.floating:
        return np.finfo(self.target.dtype).tiny

    def _constant(self, i: int) -> tuple:
        return self.target[i], self.weight[i], self.mu[i], self.isotropic

    def _image(self, i: int, x, x_bar, y, schedule) -> None:
        from .rof_loops import sweeps

        steps = [np.ascontiguousarray(s[:, i]) for s in schedule]
        sweeps(*self._constant(i), x[i], x_bar[i], y[i], *steps, self._tiny)


@lru_cache
def _compile(dtype: np.dtype) -> None:
    """Once, by one thread: a sweep of an image of one pixel."""
    from .rof_loops import energies, sweeps

    dot, pair, one = np.zeros((1, 1, 1), dtype), np.zeros((1, 2, 1, 1), dtype), np.ones(1, dtype)
    with announced(sweeps, energies):
        constants = (dot, dot[0], one[0], True)
        sweeps(*constants, dot.copy(), dot.copy(), pair, one, one, one, np.finfo(dtype).tiny)
        energies(*constants, dot, pair)


def array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


def per_image(number: Scalar, x: Tensor, image: Sequence[int]) -> Tensor | None:  # -> (N,)
    """A number, or one a sample, for every image (C, H, W) of x; None if it varies inside."""
    number = torch.as_tensor(number, dtype=x.dtype)
    inside = 3 if image[0] > 1 else 2  # the dims of x that are one image
    if number.ndim > x.ndim or (number.numel() > 1 and number.shape[-inside:].numel() > 1):
        return None
    lead = (*x.shape[:-inside], *[1] * inside)
    return number.reshape(number.shape or (1,)).expand(lead).reshape(-1)


def _per_pixel(weight: Scalar, x: Tensor, image: Sequence[int]) -> Tensor:
    """A weight that broadcasts against the density, as (N, 1 or H, W)."""
    weight = torch.as_tensor(weight, dtype=x.dtype)
    rows = weight.shape[-2] if weight.ndim > 1 else 1
    lead = x.shape[:-2] if image[0] == 1 else (*x.shape[:-3], 1)
    return weight.expand(*lead, rows, x.shape[-1]).reshape(-1, rows, x.shape[-1])
