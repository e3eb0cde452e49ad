"""PrimalDual on mu/2 |x - target|^2 + weight TV(x), on the CPU: T, sweeps and gap."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from types import ModuleType

import numpy as np
import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .._broadcast import Scalar, expand
from .._one_thread import copied
from .._remembered import Remembered
from ..problem import Problem
from .arrays import array, loops_of, per_image
from .compiled import announced, spread
from .denoising import Denoising

Z = tuple[Tensor, ...]
Edge = tuple[int, int]  # (row, slope), as rof_loops.sweeps
_FACTORED = 2**13  # unknowns up to which a sparse factor is made
_SHARE = 2**16  # pixels that are worth a thread
_GROUP = 16  # sweeps between two meetings of the threads


@dataclass(frozen=True, eq=False)
class ROF:
    """PrimalDual on images and volumes, with the two steps of T, one an image.

    Images are shared among threads, and so are the rows of one large image: each thread has a band
    of them, from whose inner edges every sweep keeps another row away, so that it needs nothing of
    the other bands. After some sweeps all meet, and what is left between the bands is made up.
    Every number comes out as on one thread.
    """

    target: np.ndarray  # (N, C, rows, W), the rest as Denoising
    weight: np.ndarray
    mu: np.ndarray
    isotropic: bool
    image: tuple[int, ...]
    steps: tuple[np.ndarray, np.ndarray]  # tau, sigma: (N,)

    @staticmethod
    def of(problem: Problem, steps: tuple[Scalar, Scalar], z: Z) -> ROF | None:
        """The kernel for a problem of this shape, None for any other."""
        energy = Denoising.of(problem, z[0])
        if energy is None:
            return None
        n, *image = energy.target.shape
        spread_out = [per_image(expand(step, z[0]), z[0], image) for step in steps]
        if any(step is None for step in spread_out):
            return None
        fields = (energy.weight, energy.mu, *spread_out)
        weight, mu, tau, sigma = (array(field) for field in fields)  # type: ignore[arg-type]
        target = array(energy.target).reshape(n, image[0], math.prod(image[1:-1]), image[-1])
        return ROF(target, weight, mu, energy.isotropic, tuple(image), (tau, sigma))

    def T(self, z: Z) -> Z:
        z = tuple(copied(part) for part in z)
        return self._advance(z, [*(step[None] for step in self.steps), np.ones((1, len(self.mu)))])

    def sweeps(
        self, z: Z, tau: Sequence[Scalar], sigma: Sequence[Scalar], theta: Sequence[Scalar]
    ) -> Z:
        """PrimalDual.sweep with each of the steps in turn, one number or one a sample; in z's own
        memory, if it is contiguous."""
        increment_version(z)  # what is remembered of it is void
        return self._advance(z, [self._schedule(numbers, z[0]) for numbers in (tau, sigma, theta)])

    def _advance(self, z: Z, schedule: list[np.ndarray]) -> Z:  # of (steps, N)
        def one(i: int, begin: Edge, end: Edge, k: int) -> None:
            some = [np.ascontiguousarray(steps[k : k + group, i]) for steps in schedule]
            state = x[i], x_bar[i], y[i]
            loops.sweeps(*self._constant(i), self._height, begin, end, *state, *some, self._tiny)

        schedule = [steps.astype(self.target.dtype, copy=False) for steps in schedule]
        z = tuple(part.detach().contiguous() for part in z)
        x, x_bar, y = self._image(z[0]), self._image(z[1]), self._differences(z[2])
        self._close(y)
        loops = self._loops()
        n, steps = len(x), len(schedule[0])
        inner = self._cuts(min(steps, _GROUP))
        group = min(steps, _GROUP) if inner else steps
        for k in range(0, steps, max(group, 1)):
            first = [(0, 0), *((cut, 1) for cut in inner)]
            last = [*((cut, -1) for cut in inner), (x.shape[2], 0)]
            spread(one, [(i, *b, k) for i in range(n) for b in zip(first, last, strict=True)])
            spread(one, [(i, (cut, -1), (cut, 1), k) for i in range(n) for cut in inner])
        return z

    def _cuts(self, group: int) -> list[int]:
        """The rows at which the bands of an image begin, but for the first."""
        n, c, rows, columns = self.target.shape
        lag = 1 if self._height == rows else self._height  # as rof_loops
        room = rows // lag // (2 * group + 1)  # bands that a group of sweeps does not use up
        bands = min(torch.get_num_threads() // max(n, 1), room, c * rows * columns // _SHARE)
        return [rows // lag * b // bands * lag for b in range(1, bands)]

    def gap(self, z: Z, floor: Tensor | float) -> Tensor:  # -> (B,)
        """As Problem.gap."""
        gap, primal = self._energies(z[0], z[2])
        size = np.maximum(np.maximum(primal, abs(primal - gap)), self._tiny)
        return self._tensor(gap / np.maximum(size, np.asarray(floor)))

    def value(self, z: Z) -> Tensor:  # -> (B,)
        """As Problem.value."""
        return self._tensor(self._energies(z[0], z[2])[1])

    @property
    def small(self) -> bool:
        """Whether `finish` can be had, and takes seconds at most."""
        few = 0 < self.target.size <= _FACTORED and len(self.image) == 3
        if not few or self.target.dtype != np.float64:
            return False
        finite = np.isfinite(self.weight).all() and np.isfinite(self.target).all()
        return bool(finite and (self.mu == self.mu[:, :1, :1]).all())

    def finish(self, z: Z) -> Z:
        """The solution to rounding, from a z that is near."""
        from .finish import Finish

        x, y = self._image(z[0]), self._differences(z[2])
        pairs = []
        for i in range(len(x)):
            newton = Finish(self.target[i], self.weight[i], self.mu[i, 0, 0], self.isotropic)
            pairs.append(newton(x[i], y[i]))
        new, dual = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        new = new.reshape(z[0].shape)
        return new, new, dual.reshape(z[2].shape)

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(self.target.dtype))

    @cached_property
    def _energies(self) -> Remembered[np.ndarray]:  # of x and y
        """(P - D, P), both (B,): a gap at the end, and then the value."""
        return Remembered(self._measured)

    def _measured(self, *pair: Tensor) -> np.ndarray:
        """In float64: few small operations, whose code is cold by now."""

        def one(i: int, begin: int, end: int) -> None:
            loops.energies(*self._constant(i), self._height, begin, end, x[i], y[i], found[i])

        x, y, loops = self._image(pair[0]), self._differences(pair[1]), self._loops()
        batch, n, rows = len(pair[0]), len(x), x.shape[2]
        found = np.empty((n, rows, 2))
        cuts = [0, *self._cuts(0), rows]
        spread(one, [(i, *band) for i in range(n) for band in pairwise(cuts)])
        return found.reshape(batch, n // max(batch, 1) * rows, 2).sum(1).T

    def _image(self, x: Tensor) -> np.ndarray:  # -> (N, C, rows, W), on a contiguous x's memory
        return array(x).reshape(self.target.shape)

    def _differences(self, y: Tensor) -> np.ndarray:  # -> (N, C, dims, rows, W), likewise
        n, c, *rows = self.target.shape
        return array(y).reshape(n, c, len(self.image) - 1, *rows)

    def _close(self, y: np.ndarray) -> None:
        """No differences across the far edges: what stands there is read by nobody else."""
        dims = y.shape[2]
        y = y.reshape(*y.shape[:3], *self.image[1:])
        for d in range(dims):
            y[:, :, d][..., -1, *[slice(None)] * (dims - 1 - d)] = 0

    def _schedule(self, numbers: Sequence[Scalar], x: Tensor) -> np.ndarray:  # -> (steps, N)
        if set(map(type, numbers)) == {float}:
            column = np.array(numbers, dtype=self.target.dtype)[:, None]
            return column.repeat(len(self.target), axis=1)  # a view would be read-only: a type
        shaped = [per_image(expand(number, x), x, self.image) for number in numbers]
        return np.stack([array(number) for number in shaped])  # type: ignore[arg-type]

    def _loops(self) -> ModuleType:
        loops = loops_of(self.image)
        _compile(loops, self.target.dtype)
        return loops

    @cached_property
    def _height(self) -> int:
        return math.prod(self.image[-2:-1])

    @cached_property
    def _tiny(self) -> np.floating:
        return np.finfo(self.target.dtype).tiny

    def _constant(self, i: int) -> tuple:
        return self.target[i], self.weight[i], self.mu[i], self.isotropic


@lru_cache
def _compile(loops: ModuleType, dtype: np.dtype) -> None:
    """Once, by one thread: a sweep of an image of one pixel."""
    dot, pair, one = np.zeros((1, 1, 1), dtype), np.zeros((1, 2, 1, 1), dtype), np.ones(1, dtype)
    with announced(loops.sweeps, loops.energies):
        constants, edges = (dot, dot[0], dot[0], True, 1), ((0, 0), (1, 0))
        state = dot.copy(), dot.copy(), pair
        loops.sweeps(*constants, *edges, *state, one, one, one, np.finfo(dtype).tiny)
        loops.energies(*constants, 0, 1, dot, pair, np.zeros((1, 2)))
