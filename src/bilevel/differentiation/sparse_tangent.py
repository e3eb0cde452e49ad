"""The derivative along manifolds behind local operators, for images of any size."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property, reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .._broadcast import eps
from .links import Far, Link, links_of, near_first, stacked
from .local_maps import Map, Sparse, rows, sparse_matrices
from .noise import noise
from .sparse_saddle import Saddle

if TYPE_CHECKING:
    from .active import Active

Z = tuple[Tensor, ...]
Pair = tuple[np.ndarray, np.ndarray]  # one row a sample
_LARGEST = 2**16  # coordinates of which factors are kept
_LIMIT = 1000  # products of one solve
_SAFELY = 1e-2  # times the tolerance: of the energy's root, in place of the residual


class Factored:
    """The derivative of `Problem.kkt`, with J_i = D prox_i = (1 + H_i)^-1 P_i and K_0 = 1 for g, as

        A u + sum K_i* s_i = c,    (1 - J_i) K_i u - J_i s_i = e_i,

    in which no small jump makes a large number. A is f'', and K_i* H_i K_i of terms whose operators
    are not local. By conjugate residuals, preconditioned by the same system with G in the place of
    A [1]: its local parts, and the mean curvature for the others. So each step stays in the tangent
    space, and one suffices where A is local: for masks, few pixels of blur, separable losses. Some
    50 to 300 with a blur or a Radon transform.
    [1] Gould, Hribar, Nocedal. On the solution of equality constrained quadratic programming
        problems arising in optimization. SISC, 2001.
    """

    def __init__(self, active: Active, links: list[Link]) -> None:
        self.active, self.links = active, links

    @staticmethod
    def of(active: Active) -> Factored | None:
        """None unless all is real, f has a Hessian, and the terms are local or hold one direction
        each."""
        f, count = active.problem.f, active.x.shape[1:].numel()
        real = all(part.is_floating_point() for part in (active.x, *active.y))
        if not real or not len(active.x) or count > _LARGEST or not (f is None or f.potential):
            return None
        links = links_of(active)
        return None if links is None else Factored(active, links)

    def solve(self, b: Z, transposed: bool) -> Z:
        """M^-1 b or M*^-1 b, M the derivative of `Problem.kkt`; the factors of a few samples at a
        time are kept."""
        found = []
        for index, piece in self._pieces():
            found.append(piece._solve(tuple(part[index] for part in b), transposed))
        return tuple(torch.cat(parts) for parts in zip(*found, strict=True))

    def _pieces(self) -> Iterator[tuple[Tensor, Factored]]:
        """(samples, theirs): one piece if a term cannot be indexed."""
        x = self.active.x
        every = torch.arange(len(x), device=x.device)
        for index in every.split(max(_LARGEST // x[0].numel(), 1)):
            active = None if len(index) == len(x) else self.active.take(index)
            links = None if active is None else links_of(active)
            if active is None or links is None:
                yield every, self
                return
            yield index, Factored(active, links)

    def _solve(self, b: Z, transposed: bool) -> Z:
        (a, *bs), composed = b, self.active.composed
        own = [] if self.active.own is None else [a]
        if not transposed:
            u, s = self._linked(torch.zeros_like(a) if own else a, [*own, *(-v for v in bs)])
            return (u, *s[len(own) :])
        e = [v - m.contract(v) for v, (_, m) in zip(bs, composed, strict=True)]
        u, s = self._linked(a, [*map(torch.zeros_like, own), *e])
        triples = zip(bs, composed, s[len(own) :], strict=True)
        return (u + s[0] if own else u, *(v - k(u) - t for v, (k, _), t in triples))

    def _linked(self, c: Tensor, e: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """(u, (s_0, s_1, ...)) of the system above."""
        c = reduce(add, (link.load(e_i) for link, e_i in zip(self.links, e, strict=True)), c)
        order = near_first(self.links)
        level = torch.cat([self.links[i].level(e[i]) for i in order], 1)
        p, held = self._system(rows(c), rows(level))
        u, sizes = self._tensor(p), [self.links[i].count for i in order]
        parts = torch.from_numpy(held).to(c).split(sizes, 1)
        found = {i: self.links[i].dual(part, u, e[i]) for i, part in zip(order, parts, strict=True)}
        return u, [found[i] for i in range(len(e))]

    # ------------------------------------------------------------------------------ the system

    def _system(self, c: np.ndarray, e: np.ndarray) -> Pair:
        p, s = self._preconditioned(c, e)
        r = c - self._image(p, s)
        tol = max(_SAFELY * self.active.tol, 4 * eps(self.active.x))
        size = np.abs(_dots(c, p)) + np.abs(_dots(c - r, p))
        more, turn = self._along(r, tol**2 * size)
        return p + more, s + turn

    def _along(self, r: np.ndarray, goal: np.ndarray) -> Pair:
        """(p, s) for e = 0 and c = r, until <r, z> <= goal, (z, t) that of G in the place of A: a
        square that each step lessens, down to rounding, or to what has no answer."""
        p, s, none = np.zeros_like(r), self._nothing(r), self._nothing(r)
        z, t = self._preconditioned(r, none)
        image = self._image(z, t)
        step, held, turned = z, t, image
        left, bent = _dots(r, z), _dots(z, image)
        going = left > goal
        for _ in range(_LIMIT):
            going = going & (left > goal) & (bent > 1e-12 * left)
            if not going.any():
                break
            y, w = self._preconditioned(turned, none)
            length = _ratio(bent, _dots(turned, y))
            z, t, r = z - length * y, t - length * w, r - length * turned
            before, left = left, _dots(r, z)
            going = going & (left < before)
            p, s = p + going[:, None] * length * step, s + going[:, None] * length * held
            image, before = self._image(z, t), bent
            bent = _dots(z, image)
            beside = _ratio(bent, before)
            step, held, turned = z + beside * step, t + beside * held, image + beside * turned
        return p, s

    def _nothing(self, r: np.ndarray) -> np.ndarray:
        first = self._saddles[0].rows
        return np.zeros((len(r), first.L.shape[0] + len(first.Q)))

    def _preconditioned(self, r: np.ndarray, e: np.ndarray) -> Pair:
        pairs = [one(a, b) for one, a, b in zip(self._saddles, r, e, strict=True)]
        return np.stack([z for z, _ in pairs]), np.stack([s for _, s in pairs])

    def _image(self, p: np.ndarray, s: np.ndarray) -> np.ndarray:
        """A p + sum K_i* s_i."""
        v = self._tensor(p)
        bent = reduce(add, (rows(image(v)) for image in self._curvatures))
        return bent + np.stack([one.rows.pull(t) for one, t in zip(self._saddles, s, strict=True)])

    @property
    def _curvatures(self) -> list[Map]:
        """The parts of A."""
        return [self.active.smooth, *(f.bend for f in self.links if isinstance(f, Far))]

    @cached_property
    def _saddles(self) -> list[Saddle]:
        parts = zip(self._local_curvature(), stacked(self.links, self.active.x), strict=True)
        return [Saddle(G, rows) for G, rows in parts]

    def _local_curvature(self) -> list[Sparse]:
        """G of each sample."""
        from scipy.sparse import eye_array  # not with `import bilevel`

        x, local, mean = self.active.x, [], np.zeros(len(self.active.x))
        v = noise(x)
        for image in self._curvatures:
            found = sparse_matrices(image, x)
            if found is None:
                mean += _dots(rows(v), rows(image(v))) / _dots(rows(v), rows(v))
            else:
                local.append(found)
        eye = eye_array(x[0].numel(), format="csc")
        return [reduce(add, (part[i] for part in local), mean[i] * eye) for i in range(len(x))]

    def _tensor(self, p: np.ndarray) -> Tensor:
        return torch.from_numpy(p).to(self.active.x).reshape(self.active.x.shape)


def _dots(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # -> (B,)
    return (a * b).sum(1)


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:  # -> (B, 1)
    return np.divide(a, b, out=np.zeros_like(a), where=b != 0)[:, None]
